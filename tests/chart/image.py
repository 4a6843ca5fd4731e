"""The image without a container engine: the Dockerfile's own steps create its root, and the program runs in it."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from common import BINARY, ROOT, embed, main, run, started


def steps():
    """Returns the Dockerfile's steps by stage, as (word, rest)."""
    stages = []
    for line in re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines():
        if line.startswith("FROM "):
            stages.append([])
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            stages[-1].append((word, rest))
    return stages


def final(word):
    (found,) = [rest for step, rest in steps()[-1] if step == word]
    return found


def lay_out(folder):
    """Creates the final root: runs the build stage's steps except the compiler, then each COPY of the final stage."""
    stage, root = folder / "stage", folder / "root"
    for word, rest in steps()[0]:
        if word == "RUN" and "cargo" not in rest:
            moved = {"target/dist/vecho": BINARY, "/image": f"{stage}/image"}
            assert set(moved) <= set(rest.split()), rest
            run(*(moved.get(part, part) for part in rest.split()), cwd=ROOT)
    assert final("FROM") == "scratch"
    for word, rest in steps()[-1]:
        if word == "COPY":
            origin, source, target = rest.split()
            assert origin == "--from=build"
            shutil.copytree(f"{stage}{source}", f"{root}{target}", dirs_exist_ok=True)
    return root


def started_by_a_runtime(root):
    """Adds the files of a container runtime, and returns the command that changes user and root."""
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/resolv.conf").write_text("")
    user = final("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number that is not root's"
    if os.geteuid() == 0:
        return ["chroot", f"--userspec={user}", str(root)]
    assert shutil.which("unshare"), "unshare is missing (Debian: apt-get install util-linux)"
    return ["unshare", "--map-root-user", "chroot", str(root)]


def environment():
    return dict(rest.split("=", 1) for word, rest in steps()[-1] if word == "ENV")


def the_image_runs_without_root_on_a_read_only_filesystem():
    """Resolves `localhost` and connects to the upstream in UPSTREAM by TLS, with the root certificate in CA_FILE."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = lay_out(Path(folder))
        chroot = started_by_a_runtime(root)
        shutil.copy(os.environ["CA_FILE"], root / "etc/ca.pem")
        os.chmod(root / "etc/ca.pem", 0o444)
        run("chmod", "-R", "a-w", root)
        before = run("find", root, "-printf", "%p %m %s %T@\n")
        settings = environment() | {
            "VECHO_LISTEN": "127.0.0.1:0",
            "VECHO_ADMIN_LISTEN": "127.0.0.1:0",
            "VECHO_UPSTREAM_URL": os.environ["UPSTREAM"],
            "VECHO_UPSTREAM_CA_FILE": "/etc/ca.pem",
            "VECHO_FALLBACK_MODE": "error",
        }
        line = [*chroot, *json.loads(final("ENTRYPOINT"))]
        search = {"PATH": os.environ["PATH"]}
        try:
            with started(line, search | settings) as (pid, public, admin):
                assert embed(public)[0]["embedding"], "a vector by TLS, from a host by name"
                if os.geteuid() == 0:
                    assert Path(f"/proc/{pid}").stat().st_uid == int(final("USER").split(":")[0])
                check = json.loads(re.search(r"CMD (\[.*\])", final("HEALTHCHECK"))[1])
                run(*chroot, *check, env=search | settings | {"VECHO_ADMIN_LISTEN": admin})
            after = run("find", root, "-printf", "%p %m %s %T@\n")
        finally:
            run("chmod", "-R", "u+w", root)
        assert after == before, "nothing was written"


def the_image_contains_only_the_program_its_libraries_and_their_licences():
    with tempfile.TemporaryDirectory() as folder:
        root = lay_out(Path(folder))
        files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        libraries = {path for path in files if re.search(r"^lib.*\.so(\.\d+)?$", path)}
        licences = {f"licences/{name}" for name in ("LICENSE", "THIRD-PARTY.txt", "libc6.txt", "libgcc-s1.txt")}
        assert files - libraries == {"vecho", "etc/nsswitch.conf"} | licences, files
        assert all((root / path).stat().st_size > 1000 for path in licences)
        assert 2 <= len(libraries) <= 6, libraries
        assert (root / "var/cache/vecho").stat().st_mode & 0o7777 == 0o1777, "any user may cache"


def the_build_context_has_all_files_of_the_build():
    """Cargo must find every target of the manifest in the files that .dockerignore keeps, and the script its place."""
    with tempfile.TemporaryDirectory() as folder:
        for line in (ROOT / ".dockerignore").read_text().split():
            if line.startswith("!"):
                source, target = ROOT / line[1:], Path(folder) / line[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        told = run("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1", cwd=folder)
        (package,) = json.loads(told)["packages"]
        assert steps()[0][0] == ("FROM", f"rust:{package['rust_version']}-bookworm AS build")
        for target in package["targets"]:
            assert Path(target["src_path"]).exists(), target["src_path"]
        for source in Path(folder).glob("src/**/*.rs"):
            for embedded in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', source.read_text()):
                assert (source.parent / embedded).exists(), f"{source.relative_to(folder)} embeds {embedded}"
        for source in ("scripts/image-root", "packaging/notices.py", "packaging/licences/MIT.txt", "LICENSE"):
            assert (Path(folder) / source).exists(), source
        assert not (Path(folder) / "target").exists()


if __name__ == "__main__":
    main(globals())
