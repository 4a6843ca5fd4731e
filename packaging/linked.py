"""The crates that are linked into the program: `cargo tree` says which, `cargo metadata` and Cargo.lock the rest."""

import functools
import json
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from project import ROOT, run


class Crate(NamedTuple):
    """A linked crate."""

    name: str
    version: str
    licence: str
    authors: list
    repository: str | None
    folder: Path
    sha256: str | None
    # Names and versions of the linked crates that it uses.
    uses: list

    @property
    def purl(self):
        return f"pkg:cargo/{self.name}@{self.version}"


@functools.cache
def linked(triple):
    """Returns vecho and then its crates, sorted. Crates of build scripts, macros and tests are not linked."""
    uses = tree(triple)
    packages = {(package["name"], package["version"]): package for package in metadata(triple)}
    sums = {(lock["name"], lock["version"]): lock.get("checksum") for lock in locked()}
    first, *others = uses
    return [crate(key, packages[key], sums[key], uses[key]) for key in [first, *sorted(others)]]


def crate(key, package, sha256, uses):
    return Crate(
        name=key[0],
        version=key[1],
        licence=expression(package["license"]),
        authors=package["authors"],
        repository=package["repository"],
        folder=Path(package["manifest_path"]).parent,
        sha256=sha256,
        uses=sorted(uses),
    )


def tree(triple):
    """Returns what each linked crate uses, by (name, version), vecho first."""
    kinds = ["--edges", "normal,no-proc-macro", "--target", triple]
    text = run("cargo", "tree", "--locked", *kinds, "--prefix", "depth", "--format", " {p}")
    uses, path = {}, []
    for depth, name, version in re.findall(r"^(\d+) (\S+) v(\S+)", text, re.M):
        key = (name, version)
        path[int(depth) :] = [key]
        uses.setdefault(key, set())
        if len(path) > 1:
            uses[path[-2]].add(key)
    return uses


def metadata(triple):
    whole = run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", triple)
    return json.loads(whole)["packages"]


def locked():
    return tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]


def expression(licence):
    """Returns an SPDX expression. Old manifests write `/` for `OR`."""
    return re.sub(r"\s*/\s*", " OR ", licence)
