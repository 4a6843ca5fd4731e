"""What the packages hold: the same bytes each time, licences, the bill of materials, one version."""

import email
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import cyclonedx.schema
import cyclonedx.validation.json
import license_expression
import yaml

from common import ROOT, folder, main, legal_files, run

import archive
import linked
import notes
import notices
import npm
import project
import sbom
import version
import wheel

HERE = project.target()
# Any program of this machine can be packed.
SMALL = shutil.which("true")
DIST = ROOT / "packaging/dist.py"


def make_dist_writes_the_same_bytes_again():
    with folder() as path:
        first, second = path / "first", path / "second"
        for there in (first, second):
            # Variables of an outer `make` must not reach this one.
            env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES")}
            run("make", "dist", f"BINARY={SMALL}", f"FOLDER={there}", cwd=ROOT, env=env)
        number, tag = project.VERSION, wheel.platform(Path(SMALL).read_bytes(), HERE)
        names = {
            f"vecho-{number}-{HERE.triple}.tar.gz",
            f"vecho-{number}-{HERE.triple}.cdx.json",
            f"vecho-{number}-py3-none-{tag}.whl",
            f"vecho-{HERE.npm}-{number}.tgz",
            f"vecho-{number}.tgz",
        }
        sums = (first / "SHA256SUMS").read_text()
        assert {line.split("  ")[1] for line in sums.splitlines()} == names
        run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=first)
        assert (second / "SHA256SUMS").read_text() == sums
        for name in names:
            assert_holds_legal_files(name, first / name)
        # What another target adds is in the sums after `--sums`.
        (first / "other").write_text("x")
        run(sys.executable, DIST, "--sums", first)
        assert "  other\n" in (first / "SHA256SUMS").read_text()


def assert_holds_legal_files(name, file):
    if name.endswith(".cdx.json") or name == f"vecho-{project.VERSION}.tgz":
        return
    held = zipfile.ZipFile(file).namelist() if name.endswith(".whl") else tarfile.open(file).getnames()
    for legal in ("LICENSE", "THIRD-PARTY.txt", f"vecho-{project.VERSION}-{HERE.triple}.cdx.json"):
        assert any(path.endswith(f"/{legal}") for path in held), f"{name} lacks {legal}: {held}"


def programs_for_other_machines_are_refused():
    with folder() as path:
        other = next(target for target in project.TARGETS.values() if target.os != HERE.os)
        for line, part in {
            (SMALL, path / "x", "--target", other.triple): f"is not a program for {other.triple}",
            (SMALL, path / "x", "--target", "wasm32-wasip1"): "there are no packages for wasm32-wasip1, only for x86_64",
            (ROOT / "LICENSE", path / "x"): f"is not a program for {HERE.triple}",
            (SMALL, path / "x", "--glibc", "2.1"): "the program needs glibc 2.",
        }.items():
            error = run(sys.executable, DIST, *line, status=1)
            assert part in error, error
        assert not (path / "x").exists(), "nothing was written"
        # A linker that packs relocations needs a newer glibc than any symbol says.
        assert wheel.platform(b"\0GLIBC_2.5\0GLIBC_2.14\0x\0GLIBC_ABI_DT_RELR\0", HERE).startswith("manylinux_2_36_")
        assert wheel.platform(b"\0GLIBC_2.2.5\0GLIBC_2.4\0", HERE).startswith("manylinux_2_17_")


def the_bill_of_materials_is_valid_and_names_the_linked_crates():
    text = sbom.sbom(HERE.triple).decode()
    validator = cyclonedx.validation.json.JsonStrictValidator(cyclonedx.schema.SchemaVersion.V1_6)
    assert (fault := validator.validate_str(text)) is None, fault
    bill = json.loads(text)
    parts = {part["name"]: part for part in bill["components"]}
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    # `idna_adapter` is there to choose a version, and `tokio` also a library of the tests.
    missing = set(manifest["dependencies"]) - set(parts)
    assert not missing, f"the bill lacks {missing}"
    extra = (set(manifest["dev-dependencies"]) - set(manifest["dependencies"])) & set(parts)
    assert not extra, f"the bill names {extra}, which only tests use"
    assert "syn" not in parts, "macros are not linked"
    known = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    for node in bill["dependencies"]:
        assert {node["ref"], *node["dependsOn"]} <= known, node
    licensing = license_expression.get_spdx_licensing()
    for part in bill["components"]:
        faults = licensing.validate(part["licenses"][0]["expression"]).errors
        assert not faults, f"{part['name']}: {faults}"
        assert part["name"] == "rust-std" or len(part["hashes"][0]["content"]) == 64, part


def the_notices_have_the_licence_of_every_linked_crate():
    text = notices.notices(HERE.triple).decode()
    heads = "\n".join(re.findall(r"^={78}\n(.+)\n={78}$", text, re.M))
    for crate in linked.linked(HERE.triple)[1:]:
        assert f"\n{crate.name} {crate.version}: {crate.licence}\n" in text, crate.name
        assert re.search(rf"(^|, ){re.escape(f'{crate.name} {crate.version}')}($|,)", heads, re.M), crate.name
    assert "{authors}" not in text
    for part in ["The Rust Project", "AWS Libcrypto", "Copyright (c) Meta Platforms", "Daniel Reiter Horn", "Unicode, Inc"]:
        assert part in text, part
    # zstd is offered under either of two licences.
    assert "GNU GENERAL PUBLIC LICENSE" not in text


def the_crate_has_every_file_that_its_build_reads():
    listed = set(run("cargo", "package", "--list", "--allow-dirty", "--locked", "--offline", cwd=ROOT).split("\n"))
    assert {"Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "CHANGELOG.md", "src/main.rs"} <= listed
    read = 0
    for source in (ROOT / "src").rglob("*.rs"):
        assert str(source.relative_to(ROOT)) in listed, source
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"\s*\)', source.read_text()):
            path = (source.parent / name).resolve().relative_to(ROOT)
            is_test = "test" in source.name or "/tests/" in str(source)
            assert is_test or str(path) in listed, f"{source} includes {path}, which the crate lacks"
            read += 1
    assert read > 3
    for word in ("license", "description", "readme", "keywords", "categories"):
        assert project.CRATE[word], word
    # The rest of the repository is of no use to `cargo install`.
    assert not [path for path in listed if path.startswith(("tests/", "fuzz/", "charts/", "benches/", "packaging/"))]
    assert len(listed) < 600, len(listed)


def every_version_is_that_of_the_crate():
    number = project.VERSION
    chart = yaml.safe_load((ROOT / "charts/vecho/Chart.yaml").read_text())
    assert chart["appVersion"] == number, "charts/vecho/Chart.yaml"
    assert f'.TH vecho 1  "vecho {number}"' in (ROOT / "packaging/man/vecho.1").read_text()
    with folder() as path:
        name, content = wheel.wheel(Path(SMALL).read_bytes(), HERE, legal_files())
        files = zipfile.ZipFile(io.BytesIO(content))
        metadata = email.message_from_bytes(files.read(f"vecho-{number}.dist-info/METADATA"))
        assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == ("vecho", number, "Apache-2.0")
        for _, content in (npm.launcher(legal_files()), npm.platform(b"", HERE, legal_files())):
            tarfile.open(fileobj=io.BytesIO(content)).extractall(path, filter="data")
            package = json.loads((path / "package/package.json").read_text())
            assert {package["version"], *package.get("optionalDependencies", {}).values()} == {number}
            assert "scripts" not in package, "an install runs no script"
    assert number in archive.archive(b"", HERE, legal_files())[0]


def a_new_version_reaches_every_file_that_names_it():
    texts = version.changed("7.8.9", "2030-01-02")
    assert tomllib.loads(texts["Cargo.toml"])["package"]["version"] == "7.8.9"
    for lock in ("Cargo.lock", "fuzz/Cargo.lock"):
        versions = {package["name"]: package["version"] for package in tomllib.loads(texts[lock])["package"]}
        before = tomllib.loads((ROOT / lock).read_text())["package"]
        assert versions == {package["name"]: package["version"] for package in before} | {"vecho": "7.8.9"}
    chart = yaml.safe_load(texts["charts/vecho/Chart.yaml"])
    assert (chart["version"], chart["appVersion"]) == ("7.8.9", "7.8.9")
    assert notes.section(texts["CHANGELOG.md"], "7.8.9") == notes.section((ROOT / "CHANGELOG.md").read_text(), "Unreleased")
    assert notes.section(texts["CHANGELOG.md"], "Unreleased") is None
    assert "docker build -t vecho:7.8.9 ." in texts["Dockerfile"] and "vecho-7.8.9-x86_64" in texts["docs/INSTALL.md"]
    # A file that names the image or an archive with its version must be among them.
    named = re.compile(rf"vecho[: -]v?{re.escape(project.VERSION)}\b")
    for name in run("git", "ls-files", "*.md", "*.yaml", "*.toml", "*.1", "Dockerfile", ":!tests", cwd=ROOT).split():
        assert not named.search(texts.get(name) or (ROOT / name).read_text()), name


def the_release_notes_are_the_section_of_the_version():
    text = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-02\n\n### Added\n\n- Two.\n\n## [0.1.0] - 2026-12-01\n\n- One.\n"
    assert notes.section(text, "0.2.0") == "### Added\n\n- Two.\n"
    assert notes.section(text, "0.1.0") == "- One.\n"
    assert notes.section(text, "Unreleased") is None, "an empty section is no text"
    assert notes.section(text, "0.2") is None
    error = run(sys.executable, ROOT / "packaging/notes.py", "--tag", "v9.9.9", status=1)
    assert "the tag is v9.9.9" in error and f"tag v{project.VERSION}" in error, error


if __name__ == "__main__":
    main(globals())
