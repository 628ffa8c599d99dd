"""A file that is being uploaded: its bytes and what was said about it, in the data folder until it is whole.

The folder `uploads` holds two files per upload, named by a random id; nothing a client sends becomes a path.
"""

import asyncio
import hashlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from db.artifacts import Artifacts
from workers.writing import written_whole

BLOCK_BYTES = 1 << 20
ABANDONED_SECONDS = 6 * 3600.0
IDENTITY = ("noun", "file_name", "size_bytes", "fingerprint")
_ID = re.compile(r"[0-9a-f]{32}")


class WrongBytes(Exception):
    """The bytes that came are not those that were announced."""


@dataclass(frozen=True)
class Incoming:
    """One upload. said: what the client told when it began, already checked."""

    folder: Path
    id: str
    said: dict[str, Any]

    @property
    def bytes_file(self) -> Path:
        return self.folder / f"{self.id}.partial"

    @property
    def said_file(self) -> Path:
        return self.folder / f"{self.id}.json"

    def remember(self) -> None:
        """Keep what was said, for whoever comes back to this upload."""
        with written_whole(self.said_file) as file:
            file.write_text(json.dumps(self.said))

    def received_bytes(self) -> int:
        return self.bytes_file.stat().st_size

    async def append(self, blocks: AsyncIterator[bytes], *, limit_bytes: int, sha256: str | None) -> None:
        """Add one chunk; a chunk that is cut off, too long or hashed otherwise leaves nothing."""
        before, digest, length = self.received_bytes(), hashlib.sha256(), 0
        try:
            with self.bytes_file.open("ab", buffering=BLOCK_BYTES) as file:
                async for block in blocks:
                    length += len(block)
                    if length > limit_bytes:
                        raise WrongBytes("More bytes came than were announced.")
                    digest.update(block)
                    file.write(block)
                await run_in_threadpool(file.flush)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise WrongBytes("The chunk was damaged on its way.")
        except BaseException:
            await asyncio.shield(run_in_threadpool(self._cut_to, before))
            raise

    async def adopt(self, artifacts: Artifacts) -> str:
        """Move the whole file into the store; returns its SHA-256."""
        sha256 = await run_in_threadpool(self._sha256)
        await run_in_threadpool(artifacts.adopt, self.bytes_file, sha256)
        self.said_file.unlink(missing_ok=True)
        return sha256

    def remove(self) -> None:
        self.bytes_file.unlink(missing_ok=True)
        self.said_file.unlink(missing_ok=True)

    def _cut_to(self, length: int) -> None:
        if self.bytes_file.exists():
            with self.bytes_file.open("ab") as file:
                file.truncate(length)

    def _sha256(self) -> str:
        with self.bytes_file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def begin(folder: Path, said: dict[str, Any]) -> Incoming:
    """A new empty upload; those that nobody came back to are removed first."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    upload = Incoming(folder, uuid.uuid4().hex, said)
    upload.bytes_file.touch()
    upload.remember()
    return upload


def resume(folder: Path, said: dict[str, Any]) -> Incoming | None:
    """The unfinished upload of the same file, to be read as is said now; None when there is none.

    A file is the same by its kind, name, length and `fingerprint`; without a fingerprint none is.
    """
    if said["fingerprint"] is None:
        return None
    for file in folder.glob("*.json"):
        try:
            upload = find(folder, file.stem)
        except (KeyError, ValueError):  # finished or removed meanwhile
            continue
        if all(upload.said.get(key) == said[key] for key in IDENTITY) and upload.bytes_file.is_file():
            again = Incoming(folder, upload.id, said)
            again.remember()
            return again
    return None


def find(folder: Path, upload_id: str) -> Incoming:
    """Raises KeyError when there is no such upload."""
    if not _ID.fullmatch(upload_id):
        raise KeyError(upload_id)
    try:
        said = json.loads((folder / f"{upload_id}.json").read_text())
    except FileNotFoundError as error:
        raise KeyError(upload_id) from error
    return Incoming(folder, upload_id, said)


def remove_abandoned(folder: Path) -> None:
    for file in folder.glob("*"):
        if file.stat().st_mtime < time.time() - ABANDONED_SECONDS:
            file.unlink(missing_ok=True)
