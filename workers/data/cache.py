"""Files that are complete or not there."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SUFFIX = ".partial"
#: A writer touches its file far more often than this.
ABANDONED_S = 24 * 3600


@contextmanager
def written_whole(target: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; it becomes ``target`` only when the block ends without an error.

    What a killed writer left behind is never read, and goes when the next one comes a day later.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"*{SUFFIX}"):
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            left.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=SUFFIX, delete=False) as file:
        partial = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
