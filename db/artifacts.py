"""Files by the SHA-256 of what is in them, in a local folder (shared by hosts through a volume, for now).

A name is proof of content, so nothing is ever overwritten and the same file is kept once.
"""

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Artifacts:
    """The store below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the file with this content lies. Raises KeyError when it is not there."""
        path = self._place(sha256)
        if not path.is_file():
            raise KeyError(f"no artefact {sha256}")
        return path

    def add(self, source: Path) -> str:
        """Copy a file in; returns its SHA-256."""
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not self._place(sha256).is_file():
            temporary = self.temporary()
            shutil.copyfile(source, temporary)
            self.adopt(temporary, sha256)
        return sha256

    def temporary(self) -> Path:
        """A new empty file on the same disk, to be filled and adopted, or removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".partial")
        os.close(handle)
        return Path(name)

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Move a finished temporary file in; the caller has hashed what it wrote."""
        place = self._place(sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(place)

    def _place(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise KeyError(f"{sha256[:80]!r} is not a SHA-256")
        return self.folder / sha256[:2] / sha256
