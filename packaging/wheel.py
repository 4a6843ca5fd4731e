"""The Python wheel: the program as a script, and a module that runs it."""

import base64
import hashlib
from pathlib import Path

from binary import platform
from containers import Entry, zipped
from project import CRATE, ROOT, VERSION, repository

SOURCES = Path(__file__).parent / "python"


def wheel(program, target, legal_files):
    """Returns the wheel's file name and content. Every package with the program has the legal files."""
    tag = f"py3-none-{platform(program, target)}"
    info = f"vecho-{VERSION}.dist-info"
    entries = {
        str(path.relative_to(SOURCES)): Entry(path.read_bytes()) for path in sorted(SOURCES.rglob("*.py"))
    }
    entries[f"vecho-{VERSION}.data/scripts/vecho"] = Entry(program, program=True)
    # Of the legal files, a wheel has places for licences and for the bill of materials.
    for name, content in legal_files.items():
        entries[f"{info}/{'sboms' if name.endswith('.cdx.json') else 'licenses'}/{name}"] = Entry(content)
    licences = [name for name in legal_files if not name.endswith(".cdx.json")]
    entries[f"{info}/METADATA"] = Entry(metadata(licences).encode())
    entries[f"{info}/WHEEL"] = Entry(f"Wheel-Version: 1.0\nGenerator: vecho\nRoot-Is-Purelib: false\nTag: {tag}\n".encode())
    entries[f"{info}/RECORD"] = Entry(record(entries, f"{info}/RECORD").encode())
    return f"vecho-{VERSION}-{tag}.whl", zipped(entries)


def metadata(licences):
    lines = [
        "Metadata-Version: 2.4",
        "Name: vecho",
        f"Version: {VERSION}",
        f"Summary: {CRATE['description']}",
        f"License-Expression: {CRATE['license']}",
        *[f"License-File: {name}" for name in licences],
        f"Keywords: {','.join(CRATE['keywords'])}",
        *([f"Project-URL: Repository, {address}"] if (address := repository()) else []),
        "Requires-Python: >=3.8",
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(lines) + "\n\n" + (ROOT / "packaging/README.md").read_text()


def record(entries, own):
    """Returns the list of all files with their hashes; the list itself has none."""
    lines = []
    for name, entry in entries.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(entry.content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(entry.content)}")
    return "\n".join([*lines, f"{own},,"]) + "\n"
