"""Packs a program that is built already. `scripts/dist` builds one and calls this.

dist.py BINARY FOLDER [--target TRIPLE] [--glibc MAJOR.MINOR]   writes all packages of one target and SHA256SUMS
dist.py --sums FOLDER                                          writes SHA256SUMS anew, such as for several targets
"""

import argparse
import hashlib
from pathlib import Path

import binary
from archive import archive
from notices import notices
from npm import launcher, platform
from project import ROOT, VERSION, fail, target
from sbom import sbom
from wheel import wheel


def packages(program, goal):
    """Yields the file name and content of each package."""
    bill = f"vecho-{VERSION}-{goal.triple}.cdx.json"
    legal_files = {
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
        "THIRD-PARTY.txt": notices(goal.triple),
        bill: sbom(goal.triple),
    }
    yield archive(program, goal, legal_files)
    yield wheel(program, goal, legal_files)
    yield platform(program, goal, legal_files)
    yield launcher(legal_files)
    yield bill, legal_files[bill]


def write_sums(folder):
    """Writes the hash of each file in the format of `sha256sum`."""
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def check_glibc(program, limit):
    needed = binary.glibc(program)
    if needed > tuple(int(part) for part in limit.split(".")):
        fail(f"the program needs glibc {needed[0]}.{needed[1]}, more than {limit}")


def main():
    parser = argparse.ArgumentParser(description="Packs a program that is built already.")
    parser.add_argument("--sums", action="store_true", help="only write SHA256SUMS")
    parser.add_argument("--target", help="the program's target; by default this machine's")
    parser.add_argument("--glibc", help="the highest version of glibc that the program may need")
    parser.add_argument("binary", nargs="?", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if not options.sums:
        if not options.binary:
            parser.error("it needs BINARY and FOLDER")
        goal = target(options.target)
        program = binary.read(options.binary, goal)
        if options.glibc and goal.os == "linux":
            check_glibc(program, options.glibc)
        options.folder.mkdir(parents=True, exist_ok=True)
        for name, content in packages(program, goal):
            (options.folder / name).write_bytes(content)
            print(f"{len(content) / 1e6:6.1f} MB  {options.folder / name}")
    write_sums(options.folder)


if __name__ == "__main__":
    main()
