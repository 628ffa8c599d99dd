"""Files that are whole or not there, whatever ends the process that writes them."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

SUFFIX = ".partial"
#: A writer touches its file far more often than this.
ABANDONED_S = 24 * 3600


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a name to write at; the file there becomes ``target`` when the block ends without an error, and
    has then reached the disk.

    Several processes may write the same file: each has a name of its own. What a killed one left is never
    read, and goes when the next one comes a day later.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target.parent)
    partial = target.with_name(f"{uuid4().hex}{SUFFIX}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
        _sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    for left in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError):  # finished meanwhile, by its writer or by another one who cleans up
            known = left.stat()
            if stat.S_ISREG(known.st_mode) and time.time() - known.st_mtime > ABANDONED_S:
                left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name durable as well as the bytes; only POSIX can open a folder for this."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
