"""Prints the release notes of this version: its section of CHANGELOG.md.

notes.py [--tag TAG]   with a tag, which must be that of the version in Cargo.toml
"""

import argparse
import re

from project import ROOT, VERSION, fail


def section(changelog, version):
    """Returns the text below the heading of a version, or None."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    return found[1].strip() + "\n" if found and found[1].strip() else None


def main():
    parser = argparse.ArgumentParser(description="Prints the release notes of this version.")
    parser.add_argument("--tag")
    tag = parser.parse_args().tag
    if tag not in (None, f"v{VERSION}"):
        fail(f"the tag is {tag}, and Cargo.toml has version {VERSION}: tag v{VERSION}, or change the version")
    notes = section((ROOT / "CHANGELOG.md").read_text(), VERSION)
    print(notes or fail(f"CHANGELOG.md has no section [{VERSION}] with text: rename [Unreleased]"), end="")


if __name__ == "__main__":
    main()
