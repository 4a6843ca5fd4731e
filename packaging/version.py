"""Sets the version in every file that names it, and gives the changelog's unreleased section its heading.

version.py VERSION
"""

import argparse
import datetime
import re

from project import ROOT, VERSION, fail, run

# Places of the version, as the text around it.
PLACES = [
    ("Cargo.toml", 'name = "vecho"\nversion = "{}"\n'),
    ("Cargo.lock", 'name = "vecho"\nversion = "{}"\n'),
    ("fuzz/Cargo.lock", 'name = "vecho"\nversion = "{}"\n'),
    ("charts/vecho/Chart.yaml", "\nversion: {}\nappVersion: {}\n"),
    ("charts/example-app/Chart.yaml", "  - name: vecho\n    version: {}\n"),
    ("packaging/man/vecho.1", '"vecho {}"'),
    ("packaging/man/vecho.1", "\nv{}\n"),
]
# Documents name the image and the archive with their version: `vecho:1.2.3`, `vecho-1.2.3-TARGET`.
DOCUMENTS = ["*.md", "*.yaml", "*Dockerfile", ":!CHANGELOG.md", ":!tests"]
UNRELEASED = "## [Unreleased]\n"


def changed(version, day):
    """Returns the new text of each file."""
    texts = {}
    for name, place in PLACES:
        text = texts.get(name) or (ROOT / name).read_text()
        old, new = (place.replace("{}", each) for each in (VERSION, version))
        if old not in text:
            fail(f"{name} does not contain {old!r}: change it, or the places in packaging/version.py")
        texts[name] = text.replace(old, new)
    named = re.compile(rf"\bvecho([:-]){re.escape(VERSION)}(?![\w.])")
    for name in run("git", "ls-files", "--", *DOCUMENTS).split():
        text = texts.get(name) or (ROOT / name).read_text()
        if named.search(text):
            texts[name] = named.sub(rf"vecho\g<1>{version}", text)
    changelog = (ROOT / "CHANGELOG.md").read_text()
    if changelog.count(UNRELEASED) != 1:
        fail(f"CHANGELOG.md has no heading {UNRELEASED.strip()}")
    texts["CHANGELOG.md"] = changelog.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {day}\n")
    return texts


def main():
    parser = argparse.ArgumentParser(description="Sets the version in every file that names it.")
    parser.add_argument("version")
    version = parser.parse_args().version
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        fail(f"{version} is not a version such as 1.2.3")
    for name, text in changed(version, datetime.date.today().isoformat()).items():
        (ROOT / name).write_text(text)
        print(name)


if __name__ == "__main__":
    main()
