"""Files that outlive the process: whole or not at all, whatever ends it."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4


def written_whole(file: Path, write: Callable[[Path], object]) -> None:
    """write: gets a name of its own for every process; what it leaves there takes the place of `file`."""
    partial = file.with_name(f"{uuid4().hex}.partial{file.suffix}")
    write(partial)
    partial.replace(file)
