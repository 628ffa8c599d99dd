"""Zip archives, read in place: nothing is ever extracted."""

import os
import stat
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath

from workers.data.limits import Limits
from workers.data.tree import printable
from workers.errors import DatasetRefused

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OSError, ValueError)
AGAIN = "Make the zip again from the folder of pictures."


@dataclass(frozen=True)
class Archive:
    """A zip whose table of contents was checked. Names are relative, with forward slashes."""

    where: str
    zip: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Uncompressed bytes of each file."""
        return {name: info.file_size for name, info in self.members.items()}

    def read(self, name: str) -> bytes:
        """All of one member. Raises DatasetRefused when it is damaged."""
        info = self.members[name]
        with damage_refused(f"{self.where}: {printable(name)}"), self.zip.open(info) as stream:
            # With a size, zipfile inflates no more than the table of contents promised.
            return stream.read(info.file_size + 1)


@contextmanager
def damage_refused(where: str) -> Iterator[None]:
    """Turn what zipfile raises on a damaged archive into a refusal."""
    try:
        yield
    except DAMAGE as damage:
        what = f"This zip is damaged or cut short ({damage or type(damage).__name__})."
        raise DatasetRefused(where, what, AGAIN) from damage


def open_archive(path: Path, limits: Limits) -> Archive:
    """Check the table of contents before anything is inflated. Raises DatasetRefused."""
    where = path.name
    refuse_many(path, limits)
    archive = open_zip(path)
    infos = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
    members = {safe_name(info, where): info for info in infos}
    refuse_overlaps(infos, where)
    unpacked, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    if unpacked > limits.total_bytes:
        raise DatasetRefused(
            where,
            f"It unpacks to {unpacked:,} bytes; {limits.total_bytes:,} are allowed.",
            "Bring fewer or smaller pictures.",
        )
    if unpacked > limits.free_ratio_bytes and unpacked > limits.ratio * packed:
        raise DatasetRefused(
            where,
            f"It unpacks to {unpacked / max(packed, 1):,.0f} times its size; {limits.ratio} are allowed.",
            "Save the pictures as PNG or JPEG, or bring the folder itself.",
        )
    return Archive(where, archive, members)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip whose file is closed together with it, wherever its owner is dropped."""
    file = path.open("rb")
    try:
        with damage_refused(path.name):
            archive = zipfile.ZipFile(file)
    except DatasetRefused:
        file.close()
        raise
    weakref.finalize(archive, file.close)
    return archive


def refuse_many(path: Path, limits: Limits) -> None:
    """zipfile makes an object of every entry before one can count them, so count them here."""
    with damage_refused(path.name), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65_557))
        tail = file.read()
        # found as zipfile finds it: at the very end, else before the archive's comment
        bare = tail[-22:-18] == b"PK\x05\x06" and tail[-2:] == b"\0\0"
        end = len(tail) - 22 if bare else tail.rfind(b"PK\x05\x06")
        if end < 0 or len(tail) < end + 22:
            raise zipfile.BadZipFile("no table of contents")
        table = struct.unpack_from("<L", tail, end + 12)[0]
        if end >= 76 and tail[end - 76 : end - 72] == b"PK\x06\x06":  # zip64
            table = max(table, struct.unpack_from("<Q", tail, end - 76 + 40)[0])
        start = max(0, size - len(tail) + end - 76 - table)
        file.seek(start)
        entries, last = 0, b""
        while chunk := file.read(2**20):
            entries += (last + chunk).count(b"PK\x01\x02")
            last = chunk[-3:]
    if entries > limits.members:
        raise DatasetRefused(
            path.name, f"It holds {entries:,} files; {limits.members:,} are allowed.", "Bring fewer files."
        )


def safe_name(info: zipfile.ZipInfo, where: str) -> str:
    """The member's relative name; refuses what points elsewhere or cannot be read safely."""
    name = info.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    what = None
    if not parts:
        what = "A file in it has no name."
    elif name.startswith("/") or ".." in parts or parts[0][1:2] == ":":
        what = f"The name {info.filename!r} points outside the archive."
    elif stat.S_ISLNK(info.external_attr >> 16):
        what = f"{info.filename!r} is a symbolic link."
    elif info.flag_bits & 0x1:
        what = f"{info.filename!r} is encrypted."
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Only deflate can be inflated a bounded piece at a time.
        what = f"{info.filename!r} is compressed by method {info.compress_type}, not stored or deflated."
    if what:
        raise DatasetRefused(where, what, AGAIN)
    return "/".join(parts)


def refuse_overlaps(infos: list[zipfile.ZipInfo], where: str) -> None:
    """Members that share bytes make a small file unpack to a huge one."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, following in pairwise(ordered):
        # 30 bytes of local header and one name at least; extra fields make it longer still
        if info.header_offset + 30 + info.compress_size > following.header_offset:
            what = f"{info.filename!r} and {following.filename!r} overlap in the file."
            raise DatasetRefused(where, what, AGAIN)
