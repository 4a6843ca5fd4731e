"""The licences and notices of everything that is linked into the program, as one text. Run by itself, it prints them."""

import functools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

from linked import linked
from project import ROOT, VERSION, fail, run, target

LICENCE = re.compile(r"(LICEN[CS]E|NOTICE|COPYRIGHT|UNLICENSE|COPYING)", re.I)
# The choice of an "or" that vecho does not use.
NOT_CHOSEN = {"zstd-sys": "zstd/COPYING"}
RULE = "=" * 78


@functools.cache
def notices(triple):
    """Returns the text. A licence of several crates occurs once, above it their names."""
    used_by = {}
    crates = linked(triple)[1:]
    for crate in crates:
        for text in texts(crate):
            # Many copies of a licence differ only in their line ends.
            used_by.setdefault(" ".join(text.split()), (text, []))[1].append(crate)
    parts = [head(triple, crates)]
    for text, users in used_by.values():
        names = dict.fromkeys(f"{crate.name} {crate.version}" for crate in users)
        parts.append(f"{RULE}\n{', '.join(names)}\n{RULE}\n\n{text.strip(chr(10))}\n")
    parts.append(f"{RULE}\nThe Rust standard library\n{RULE}\n\n{standard_library()}")
    return "\n".join(parts).encode()


def head(triple, crates):
    lines = [
        f"vecho {VERSION} for {triple} contains the software below. Each name is followed by its licence.",
        "The licence texts come after the list, and after them the notices of the Rust standard library.",
        "",
    ]
    lines += [f"{crate.name} {crate.version}: {crate.licence}" for crate in crates]
    return "\n".join(lines) + "\n"


def texts(crate):
    """Yields the licence files of a crate, also of C code that it contains."""
    files = [path for path in sorted(crate.folder.rglob("*")) if LICENCE.match(path.name) and path.is_file()]
    files = [path for path in files if str(path.relative_to(crate.folder)) != NOT_CHOSEN.get(crate.name)]
    if not files:
        files = [fallback(crate)]
    for path in files:
        text = path.read_text(errors="replace")
        yield text.replace("{authors}", ", ".join(crate.authors) or f"the authors of {crate.name}")


def fallback(crate):
    """Returns the standard text of a crate that ships none."""
    for licence, path in {
        "Apache-2.0": ROOT / "LICENSE",
        "MIT": Path(__file__).parent / "licences/MIT.txt",
        "BSD-3-Clause": Path(__file__).parent / "licences/BSD-3-Clause.txt",
    }.items():
        if licence in re.split(r"[ ()]+", crate.licence):
            return path
    return fail(f"{crate.name} {crate.version} has no licence file, and there is no text of {crate.licence} to give instead")


class Page(HTMLParser):
    """The text of a page. A preformatted block that occurred before is replaced by a remark."""

    def __init__(self):
        super().__init__()
        self.lines, self.block, self.seen, self.skipped = [], None, set(), 0

    def handle_starttag(self, tag, attrs):
        self.skipped += tag in ("style", "script", "head")
        if tag == "pre":
            self.block = ""

    def handle_endtag(self, tag):
        self.skipped -= tag in ("style", "script", "head")
        if tag == "pre":
            known = " ".join(self.block.split()) in self.seen
            self.seen.add(" ".join(self.block.split()))
            self.lines.append("(the text that stands above already)" if known else self.block)
            self.block = None

    def handle_data(self, data):
        if self.block is not None:
            self.block += data
        elif not self.skipped and data.strip():
            self.lines.append(data.strip())


def standard_library():
    """Returns the notices of the standard library, which come with the compiler."""
    page = Path(run("rustc", "--print", "sysroot").strip()) / "share/doc/rust/COPYRIGHT-library.html"
    if not page.exists():
        fail(f"{page} is missing: the packages need the notices of the standard library, as Rust from rustup has them")
    parser = Page()
    parser.feed(page.read_text())
    return "\n".join(parser.lines) + "\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(notices(target().triple))
