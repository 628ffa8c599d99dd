"""Files that this machine's data folder lacks, from the web process, which has them all."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from db.artifacts import CHUNK_BYTES, Artifacts
from workers.assignment import Assignment
from workers.errors import GateFailed, SomethingMissing

#: Without a byte for so long, the connection counts as lost.
SILENCE_SECONDS = 30.0
#: Between tries.
PAUSES_S = (1.0, 4.0)
#: From this status on it is not what was asked for that is wrong.
SERVERS_OWN = 500
UNREACHED = (URLError, HTTPException, ConnectionError, TimeoutError)


def stored(assignment: Assignment, sha256: str) -> Path:
    """Where the file with this content lies in the data folder; fetched first where it is not there.

    What is fetched lies apart from the dashboard's own store, which the folder may hold too: it is removed
    once it was not used for a while (`workers.watcher.sweep`).

    Raises SomethingMissing when it cannot be had, GateFailed when other bytes came; then nothing is kept.
    """
    settings = assignment.settings
    fetched, web = Artifacts(settings.fetched), settings.web_url.rstrip("/")
    with suppress(KeyError):
        return Artifacts(settings.artifacts).path(sha256)
    with suppress(KeyError, FileNotFoundError):
        os.utime(there := fetched.path(sha256))
        return there
    where = f"file {sha256[:12]}"
    if not web:
        raise SomethingMissing(
            where, "is not in this worker's data folder.",
            "Share the folder of the dashboard, or set PAREDOWN_WEB_URL to the dashboard's address.",
        )  # fmt: skip
    # In the job's folder, which goes with the job: a worker that is killed leaves nothing half-written.
    partial = assignment.folder / f"{sha256}.partial"
    with _told(where, web):
        found = _received(f"{web}/api/downloads/files/{sha256}", partial, sha256)
    if found != sha256:
        partial.unlink()
        raise GateFailed(
            where, f"came from {web} cut short or damaged: its SHA-256 is {found[:12]}….",
            "Retry; if it happens again, the dashboard's store is damaged.",
        )  # fmt: skip
    fetched.adopt(partial, sha256)
    return fetched.path(sha256)


def _received(url: str, place: Path, sha256: str) -> str:
    """Write what the address gives; returns the SHA-256 of what came.

    A dashboard may just be restarting: then a proxy says so in its place, or the file is cut short.
    """
    for pause_s in PAUSES_S:
        try:
            if _once(url, place) == sha256:
                return sha256
        except HTTPError as error:
            if error.code < SERVERS_OWN:
                raise
        except UNREACHED:
            pass
        time.sleep(pause_s)
    return _once(url, place)


def _once(url: str, place: Path) -> str:
    digest = hashlib.sha256()
    with urlopen(url, timeout=SILENCE_SECONDS) as answer, place.open("wb") as file:
        while block := answer.read(CHUNK_BYTES):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@contextmanager
def _told(where: str, web: str) -> Iterator[None]:
    """Turns what can go wrong on the way into a sentence."""
    try:
        yield
    except HTTPError as error:
        said = error.read(1000).decode(errors="replace")
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(said)["detail"]
        raise SomethingMissing(
            where, f"is refused by {web} ({error.code}): {said}",
            "Correct PAREDOWN_WEB_URL, or the dashboard's settings.",
        ) from error  # fmt: skip
    except UNREACHED as error:
        reason = getattr(error, "reason", error)
        raise SomethingMissing(
            where, f"is not in this worker's data folder, and {web} was not reached ({reason}).",
            "Start the dashboard, or correct PAREDOWN_WEB_URL; then retry.",
        ) from error  # fmt: skip
