"""Files that are whole or not there, whatever ends the process that writes them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    for left in target.parent.glob(f"*{SUFFIX}"):
        if left.is_file() and time.time() - left.stat().st_mtime > ABANDONED_S:
            left.unlink(missing_ok=True)
    partial = target.with_name(f"{uuid4().hex}{SUFFIX}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
