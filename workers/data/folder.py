"""Folders of pictures on this machine."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.data.limits import Limits
from workers.data.tree import printable
from workers.errors import DatasetRefused


@dataclass(frozen=True)
class Folder:
    """A folder whose files were listed. Names are relative, with forward slashes."""

    where: str
    root: Path
    sizes: Mapping[str, int]

    def read(self, name: str) -> bytes:
        """All of one file. Raises DatasetRefused when it is gone or not readable."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            what = f"The file cannot be read ({error.strerror})."
            raise DatasetRefused(
                f"{self.where}: {printable(name)}", what, "Check that it is there and readable."
            ) from error


def open_folder(root: Path, limits: Limits) -> Folder:
    """List all regular files below ``root``. Raises DatasetRefused for links that leave it."""
    sizes: dict[str, int] = {}
    total = 0
    for parent, folders, files in os.walk(root):
        for entry in [*folders, *files]:
            path = Path(parent, entry)
            refuse_link(path, root)
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a folder, or a pipe that would never end
                continue
            sizes[path.relative_to(root).as_posix()] = status.st_size
            total += status.st_size
            if len(sizes) > limits.members:
                what = f"It holds more than {limits.members:,} files."
                raise DatasetRefused(root.name, what, "Bring fewer files.")
            if total > limits.total_bytes:
                what = f"Its files take more than {limits.total_bytes:,} bytes."
                raise DatasetRefused(root.name, what, "Bring fewer or smaller pictures.")
    return Folder(root.name, root, sizes)


def refuse_link(path: Path, root: Path) -> None:
    """A link may point to a file inside the same folder, and nowhere else."""
    if not path.is_symlink():
        return
    target = path.resolve()
    if target.is_file() and target.is_relative_to(root.resolve()):
        return
    kind = "a folder" if target.is_dir() else "a file outside" if target.is_file() else "nothing"
    name = path.relative_to(root).as_posix()
    raise DatasetRefused(
        root.name, f"{name!r} is a link to {kind}.", "Put the files themselves there, or remove the link."
    )
