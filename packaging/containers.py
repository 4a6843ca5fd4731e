"""Archives with the same bytes from the same content: sorted names, one time, no owner."""

import gzip
import io
import tarfile
import time
import zipfile
from typing import NamedTuple

from project import epoch


class Entry(NamedTuple):
    """A file of an archive."""

    content: bytes
    program: bool = False

    @property
    def mode(self):
        return 0o755 if self.program else 0o644


def tar_gz(entries):
    """Returns a compressed tar archive of entries by name."""
    packed = io.BytesIO()
    # The name and the time in the head of gzip would differ from run to run.
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as outer:
        with tarfile.open(fileobj=outer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, entry in sorted(entries.items()):
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.mtime = len(entry.content), entry.mode, epoch()
                archive.addfile(info, io.BytesIO(entry.content))
    return packed.getvalue()


def zipped(entries):
    """Returns a zip archive of entries by name, in their order."""
    packed = io.BytesIO()
    day = time.gmtime(epoch())[:6]
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, entry in entries.items():
            info = zipfile.ZipInfo(name, day)
            info.create_system, info.external_attr = 3, (0o100000 | entry.mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.content)
    return packed.getvalue()
