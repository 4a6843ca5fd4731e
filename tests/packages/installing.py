"""Each package installs into an empty place, without a network, and its program serves."""

import base64
import functools
import hashlib
import os
import signal
import stat
import sys
import tarfile
import zipfile

from common import embed, environment, folder, main, legal_files, program, run, serves, started, written

import archive
import npm
import project
import wheel

HERE = project.target()


def the_archive_has_a_program_that_serves():
    with folder() as path:
        file = written(path, archive.archive(program(), HERE, legal_files()))
        with tarfile.open(file) as opened:
            opened.extractall(path, filter="data")
        there = path / file.name.removesuffix(".tar.gz")
        for name in ["LICENSE", "THIRD-PARTY.txt", "README.md", "man/man1/vecho.1", "man/man1/vecho-warm.1", "vecho.toml"]:
            assert (there / name).stat().st_size, name
        serves([there / "vecho"], environment(path))
        script = f"source {there}/completions/vecho.bash; COMP_WORDS=(vecho he) COMP_CWORD=1; _vecho vecho he vecho; echo ${{COMPREPLY[@]}}"
        assert run("bash", "-c", script).split() == ["healthcheck", "help"]


@functools.cache
def packed():
    return wheel.wheel(program(), HERE, legal_files())


def venv(path):
    """Returns the interpreter of a new environment. It has no pip, so the one of the tests installs into it."""
    run(sys.executable, "-m", "venv", "--without-pip", path)
    return path / "bin/python"


def the_wheel_installs_a_command_and_a_module_that_serve():
    with folder() as path:
        file = written(path, packed())
        env, python = environment(path), venv(path / "venv")
        pip = [sys.executable, "-m", "pip", "--python", python]
        run(*pip, "install", file, env=env)
        serves([path / "venv/bin/vecho"], env)
        serves([python, "-m", "vecho"], env)
        recorded(file)
        shown = run(*pip, "show", "--files", "vecho", env=env)
        for part in ["licenses/THIRD-PARTY.txt", "licenses/LICENSE", "sboms/vecho.cdx.json"]:
            assert part in shown, f"{part} is not in {shown}"
        run(*pip, "uninstall", "--yes", "vecho", env=env)
        assert not (path / "venv/bin/vecho").exists()


def recorded(file):
    """Checks the wheel's own list of files. pip does not, but some installers do."""
    with zipfile.ZipFile(file) as opened:
        (record,) = [name for name in opened.namelist() if name.endswith(".dist-info/RECORD")]
        lines = [line.split(",") for line in opened.read(record).decode().splitlines()]
        assert sorted(name for name, _, _ in lines) == sorted(opened.namelist())
        for name, digest, size in lines:
            content = opened.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert name == record or (digest, size) == (f"sha256={expected}", str(len(content))), name


def the_module_finds_the_program_of_a_target_folder():
    with folder() as path:
        file = written(path, packed())
        env = environment(path)
        run(sys.executable, "-m", "pip", "install", "--target", path / "there", file, env=env)
        found = run(sys.executable, "-m", "vecho", "--version", env=env | {"PYTHONPATH": f"{path}/there"}, cwd=path)
        assert found == f"vecho {project.VERSION}\n"
        (path / "there/bin/vecho").unlink()
        error = run(sys.executable, "-m", "vecho", env=env | {"PYTHONPATH": f"{path}/there"}, cwd=path, status=1)
        assert f"{path}/there/bin" in error and "install the package again" in error, error


def the_npm_packages_install_a_command_that_serves_and_stops_in_order():
    with folder() as path:
        files = [written(path, npm.launcher(legal_files())), written(path, npm.platform(program(), HERE, legal_files()))]
        env, there = environment(path), path / "application"
        there.mkdir()
        (there / "package.json").write_text('{"name": "application", "private": true}')
        # Scripts of packages do not run at all, so the packages cannot need one.
        run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *files, env=env, cwd=there)
        command = there / "node_modules/.bin/vecho"
        assert run("npx", "--no", "--", "vecho", "--version", env=env, cwd=there) == f"vecho {project.VERSION}\n"
        run(command, "--no-such-option", env=env, status=64)
        serves([command], env)
        interrupted(command, env)


def interrupted(command, env):
    """Checks Ctrl-C: a terminal signals the whole group, and the program must get one signal, since a second one cuts."""
    with started([command], env) as (process, public):
        assert embed(public) == "miss"
        children = run("ps", "--ppid", process.pid, "-o", "pid=,pgid=").split()
        assert len(children) == 2 and children[0] == children[1], f"the program leads its own group: {children}"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0, "it has to stop in order"
        assert run("ps", "-p", children[0], "-o", "pid=", status=1) == "", "no process is left"


def the_launcher_names_the_missing_package():
    with folder() as path:
        file = written(path, npm.launcher(legal_files()))
        with tarfile.open(file) as opened:
            opened.extractall(path, filter="data")
        launcher = path / "package/vecho.js"
        assert os.stat(launcher).st_mode & stat.S_IXUSR
        error = run("node", launcher, env=environment(path), status=1)
        assert f"the package @vecho/{HERE.npm} is not installed" in error and "--omit=optional" in error, error
        changed = "Object.defineProperty(process, 'arch', { value: 'mips' })"
        error = run("node", "-e", f"{changed}; require('{launcher}')", env=environment(path), status=1)
        assert f"there are packages for {', '.join(target.npm for target in project.TARGETS.values())}" in error, error


if __name__ == "__main__":
    main(globals())
