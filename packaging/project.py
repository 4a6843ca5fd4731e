"""Facts of the project: version, targets, time and address. Cargo.toml is the only place of the version."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CRATE = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
VERSION = CRATE["version"]


class Target(NamedTuple):
    """A platform in the words of each registry."""

    triple: str
    # The part of npm's package name, and npm's names of system and processor.
    npm: str
    os: str
    cpu: str
    # Python's platform tag. On Linux it follows from the program: see `binary.py`.
    wheel: str | None = None


TARGETS = {
    target.triple: target
    for target in [
        Target("x86_64-unknown-linux-gnu", "linux-x64", "linux", "x64"),
        Target("aarch64-unknown-linux-gnu", "linux-arm64", "linux", "arm64"),
        # The oldest macOS that Rust's own targets support.
        Target("x86_64-apple-darwin", "darwin-x64", "darwin", "x64", "macosx_10_12_x86_64"),
        Target("aarch64-apple-darwin", "darwin-arm64", "darwin", "arm64", "macosx_11_0_arm64"),
    ]
}


def fail(message):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def run(*command, **options):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def target(triple=None):
    """Returns the target of a triple, by default that of this machine."""
    triple = triple or re.search(r"^host: (\S+)$", run("rustc", "-vV"), re.M)[1]
    return TARGETS.get(triple) or fail(f"there are no packages for {triple}, only for {', '.join(TARGETS)}")


def epoch():
    """Returns the time that all files get: SOURCE_DATE_EPOCH, or the time of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    try:
        return int(run("git", "log", "-1", "--format=%ct", stderr=subprocess.DEVNULL))
    except (OSError, subprocess.CalledProcessError, ValueError):
        # A source archive without git. Zip knows no earlier day.
        return 315619200


def repository():
    """Returns the address of the repository, or None: that of Cargo.toml, else that of the workflow that runs."""
    if "repository" in CRATE:
        return CRATE["repository"]
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}" if server and name else None
