"""The archive for systems without a package manager: program, completions, manual pages, licences."""

from containers import Entry, tar_gz
from project import ROOT, VERSION

# The file in the repository, by its name in the archive.
FILES = {
    "README.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "vecho.toml": "config/vecho.toml",
    "completions/vecho.bash": "packaging/completions/vecho.bash",
    "completions/_vecho": "packaging/completions/_vecho",
    "completions/vecho.fish": "packaging/completions/vecho.fish",
}


def archive(program, target, legal_files):
    """Returns the archive's file name and content. It holds one folder of its own name."""
    name = f"vecho-{VERSION}-{target.triple}"
    entries = {file: Entry((ROOT / source).read_bytes()) for file, source in FILES.items()}
    entries |= {f"man/man1/{page.name}": Entry(page.read_bytes()) for page in (ROOT / "packaging/man").iterdir()}
    entries |= {file: Entry(content) for file, content in legal_files.items()} | {"vecho": Entry(program, program=True)}
    return f"{name}.tar.gz", tar_gz({f"{name}/{file}": entry for file, entry in entries.items()})
