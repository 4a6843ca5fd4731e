"""What a program needs of the system that runs it."""

import re
import struct
from pathlib import Path

from project import fail

# The machine of an ELF file, by its number.
MACHINES = {62: "x86_64", 183: "aarch64"}


def read(path, target):
    """Returns the program's bytes, after a check that they are for the target."""
    content = Path(path).read_bytes()
    if target.os == "linux":
        machine = content[:4] == b"\x7fELF" and MACHINES.get(struct.unpack_from("<H", content, 18)[0])
        if machine != target.triple.partition("-")[0]:
            fail(f"{path} is not a program for {target.triple}")
    elif content[:4] != b"\xcf\xfa\xed\xfe":
        fail(f"{path} is not a program for {target.triple}")
    return content


def glibc(content):
    """Returns the lowest version of glibc that has every symbol of the program, as (2, minor).

    The names of versions are strings in the file. A string that is no version can only raise the number."""
    found = {int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)(?:\.\d+)?(?=\0)", content)}
    # Relative relocations have a marker of their own, which came with 2.36.
    if b"\0GLIBC_ABI_DT_RELR\0" in content:
        found.add(36)
    return (2, max(found)) if found else fail("the program names no version of glibc: is it static?")


def platform(content, target):
    """Returns Python's platform tag."""
    if target.wheel:
        return target.wheel
    major, minor = glibc(content)
    # No tag is older than that of CentOS 7.
    return f"manylinux_{major}_{max(minor, 17)}_{target.triple.partition('-')[0]}"
