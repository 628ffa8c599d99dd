"""Uploads: announce (POST), send chunks (PUT, each with its SHA-256), finish (POST).

Announcing the same file again, e.g. after the page was reloaded, goes on where it stopped.

The web process checks lengths and hashes only; what is in the file is looked at by an import job.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Header, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.api import incoming
from app.api.incoming import Incoming, WrongBytes
from app.imports import queue_dataset, queue_model
from app.session import artifacts, settings

CHUNK_BYTES = 8 << 20
SETTINGS = ("architecture", "size", "mean", "std")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

router = APIRouter(prefix="/uploads")
_busy: set[str] = set()  # uploads that a request writes to right now


class Announced(BaseModel):
    """What is coming. The other fields say how a file of weights is to be read.

    fingerprint: what tells this file from others of its name and length, such as a hash of some of it; with
    the same one an upload that was broken off goes on.
    """

    model_config = ConfigDict(extra="forbid")

    noun: Literal["model", "dataset"]
    file_name: str = Field(min_length=1, max_length=200)
    size_bytes: int = Field(ge=1)
    fingerprint: str | None = Field(None, max_length=100)
    architecture: str | None = Field(None, max_length=100)
    size: int | None = Field(None, ge=8, le=4096)
    mean: tuple[float, ...] | None = Field(None, min_length=1, max_length=3)
    std: tuple[PositiveFloat, ...] | None = Field(None, min_length=1, max_length=3)


class Standing(BaseModel):
    id: str
    received_bytes: int
    chunk_bytes: int = CHUNK_BYTES


class Finished(BaseModel):
    """id: of the model or dataset that is now being checked."""

    id: str
    sha256: str


@router.post("", status_code=201)
def announce(what: Announced) -> Standing:
    limit = settings().upload_limit_mb
    if what.size_bytes > limit << 20:
        raise HTTPException(
            413, f"The file is larger than {limit:,} MiB, the limit (PAREDOWN_UPLOAD_LIMIT_MB)."
        )
    folder = settings().uploads
    folder.mkdir(parents=True, exist_ok=True)
    if what.size_bytes > shutil.disk_usage(folder).free:
        raise HTTPException(507, "The disk of the data folder has no room for this file.")
    said = what.model_dump(mode="json")
    upload = incoming.resume(folder, said) or incoming.begin(folder, said)
    return Standing(id=upload.id, received_bytes=upload.received_bytes())


@router.get("/{upload_id}")
def standing(upload_id: str) -> Standing:
    upload = _found(upload_id)
    return Standing(id=upload.id, received_bytes=upload.received_bytes())


@router.put("/{upload_id}")
async def send(
    upload_id: str, offset: int, request: Request, x_chunk_sha256: Annotated[Sha256 | None, Header()] = None
) -> Standing:
    """A chunk that begins at `offset`; 409 tells to ask where to go on."""
    upload = _found(upload_id)
    with _alone(upload):
        received = upload.received_bytes()
        if offset != received:
            raise HTTPException(409, f"{received:,} bytes are here; go on from there.")
        left = min(CHUNK_BYTES, upload.said["size_bytes"] - received)
        try:
            await upload.append(_blocks(request), limit_bytes=left, sha256=x_chunk_sha256)
        except WrongBytes as error:
            raise HTTPException(422, str(error)) from error
        except ClientDisconnect as error:  # nobody is there to read the answer
            raise HTTPException(400, "The connection was closed.") from error
    return Standing(id=upload.id, received_bytes=upload.received_bytes())


@router.post("/{upload_id}/finish", status_code=201)
async def finish(upload_id: str) -> Finished:
    """Keep the file, add its row, queue the check and wake a worker."""
    upload = _found(upload_id)
    with _alone(upload):
        if upload.received_bytes() != upload.said["size_bytes"]:
            raise HTTPException(
                409, f"{upload.received_bytes():,} of {upload.said['size_bytes']:,} bytes came."
            )
        sha256 = await upload.adopt(artifacts())
    return Finished(id=await run_in_threadpool(_queue, upload, sha256), sha256=sha256)


@router.delete("/{upload_id}", status_code=204)
def give_up(upload_id: str) -> Response:
    upload = _found(upload_id)
    with _alone(upload):
        upload.remove()
    return Response(status_code=204)


def display_name(file_name: str) -> str:
    """The last part of what the client calls its file, as text; never used as a path."""
    last = file_name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(letter for letter in last if letter.isprintable()).strip(" .")
    # A worker will need a file of this name; 255 bytes is what disks take. The ending tells the kind.
    return printable.encode()[-200:].decode(errors="ignore") or "unnamed"


def _queue(upload: Incoming, sha256: str) -> str:
    """The id of the new model or dataset."""
    name = display_name(upload.said["file_name"])
    if upload.said["noun"] == "dataset":
        return queue_dataset(name, upload_sha256=sha256)
    return queue_model(name, upload_sha256=sha256, settings={key: upload.said[key] for key in SETTINGS})


def _found(upload_id: str) -> Incoming:
    try:
        return incoming.find(settings().uploads, upload_id)
    except KeyError as error:
        raise HTTPException(404, "There is no such upload; it may have been given up.") from error


@contextmanager
def _alone(upload: Incoming) -> Iterator[None]:
    if upload.id in _busy:
        raise HTTPException(409, "Another request writes to this upload.")
    _busy.add(upload.id)
    try:
        yield
    finally:
        _busy.discard(upload.id)


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    async for block in request.stream():
        yield block
