"""The npm packages: one with the launcher, and one for each platform with the program.

The launcher depends on all of them as optional ones, so npm installs the one that fits. No script runs at the install,
and nothing is downloaded but the packages."""

import json
from pathlib import Path

from containers import Entry, tar_gz
from project import CRATE, ROOT, TARGETS, VERSION, repository

SOURCES = Path(__file__).parent / "npm"


def launcher(legal_files):
    """Returns the file name and content of the package `vecho`."""
    package = common() | {
        "name": "vecho",
        "bin": {"vecho": "vecho.js"},
        "engines": {"node": ">=18"},
        "os": sorted({target.os for target in TARGETS.values()}),
        "optionalDependencies": {scoped(target): VERSION for target in TARGETS.values()},
    }
    files = {"vecho.js": Entry((SOURCES / "vecho.js").read_bytes(), program=True)}
    files["README.md"] = Entry((ROOT / "packaging/README.md").read_bytes())
    return f"vecho-{VERSION}.tgz", packed(package, files | {"LICENSE": Entry(legal_files["LICENSE"])})


def platform(program, target, legal_files):
    """Returns the file name and content of the package with the program of one platform."""
    package = common() | {"name": scoped(target), "os": [target.os], "cpu": [target.cpu]}
    package["description"] = f"The program of the package vecho for {target.os} on {target.cpu}"
    if target.os == "linux":
        package["libc"] = ["glibc"]
    files = {name: Entry(content) for name, content in legal_files.items()}
    files["README.md"] = Entry(f"{package['description']}. Install `vecho`, which brings it.\n".encode())
    return f"vecho-{target.npm}-{VERSION}.tgz", packed(package, files | {"bin/vecho": Entry(program, program=True)})


def scoped(target):
    return f"@vecho/{target.npm}"


def common():
    shared = {"version": VERSION, "description": CRATE["description"], "license": CRATE["license"], "keywords": CRATE["keywords"]}
    if address := repository():
        shared["repository"] = {"type": "git", "url": f"git+{address}.git"}
    # Packages of a scope are private unless they say otherwise.
    return shared | {"publishConfig": {"access": "public"}}


def packed(package, files):
    entries = {f"package/{name}": entry for name, entry in files.items()}
    return tar_gz(entries | {"package/package.json": Entry((json.dumps(package, indent=2) + "\n").encode())})
