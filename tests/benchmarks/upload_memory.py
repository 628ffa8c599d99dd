"""What a 1 GiB upload and its download cost the web process, in time and memory.

    python -m tests.benchmarks.upload_memory [MIB] [TRIALS]

Starts the real web process on an empty folder, sends random bytes in chunks with their SHA-256 as the drop
zone does, fetches the file again, and samples the process' resident memory every 20 ms.
"""

import hashlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from db import runs
from db.session import transaction
from db.settings import Settings
from tests.support.experiments import fill
from tests.support.web import serving

RESULTS = Path(__file__).parent / "results" / "upload_memory.md"
WRITE = {"X-Paredown": "1"}
MIB = 1 << 20


@contextmanager
def most_memory(process: psutil.Process) -> Iterator[list[float]]:
    """Fills in [MiB before, most MiB] while the block runs."""
    seen, ended = [process.memory_info().rss / MIB] * 2, threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            seen[1] = max(seen[1], process.memory_info().rss / MIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def upload(client: httpx.Client, mib: int, seed: int) -> str:
    """Random bytes, so that nothing on the way can shrink them. Returns the file's SHA-256."""
    made, whole = random.Random(seed), hashlib.sha256()
    said = {"noun": "dataset", "file_name": "random.zip", "size_bytes": mib * MIB}
    at = client.post("/api/uploads", json=said, headers=WRITE).raise_for_status().json()
    while at["received_bytes"] < mib * MIB:
        chunk = made.randbytes(min(at["chunk_bytes"], mib * MIB - at["received_bytes"]))
        whole.update(chunk)
        headers = WRITE | {"X-Chunk-SHA256": hashlib.sha256(chunk).hexdigest()}
        path = f"/api/uploads/{at['id']}?offset={at['received_bytes']}"
        at = client.put(path, content=chunk, headers=headers).raise_for_status().json()
    finished = client.post(f"/api/uploads/{at['id']}/finish", headers=WRITE).raise_for_status().json()
    assert finished["sha256"] == whole.hexdigest()
    return whole.hexdigest()


def download(client: httpx.Client, variant_id: str) -> str:
    digest = hashlib.sha256()
    with client.stream("GET", f"/api/downloads/variants/{variant_id}") as answer:
        answer.raise_for_status()
        for block in answer.iter_bytes(MIB):
            digest.update(block)
    return digest.hexdigest()


def variant_of(settings: Settings, sha256: str) -> str:
    """A point whose file this is, so that it can be fetched."""
    with transaction(settings.database) as session:
        stages = (run.stages for run in runs.all_of(session))
        stage = next(stage for of_run in stages for stage in of_run)
        stage.file_sha256 = sha256
        return stage.variants[0].id


def main() -> None:
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    lines = [
        "| Trial | What | Size | Time | Before | Most | More |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as web:
        process = psutil.Process(web.pid)
        fill(web.settings.database)
        with httpx.Client(base_url=web.address, timeout=120) as client:
            client.get("/api/health").raise_for_status()
            for trial in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
                with most_memory(process) as memory:
                    began = time.perf_counter()
                    sha256 = upload(client, mib, trial)
                    lines.append(_line(trial, "upload", mib, time.perf_counter() - began, memory))
                variant_id = variant_of(web.settings, sha256)
                with most_memory(process) as memory:
                    began = time.perf_counter()
                    assert download(client, variant_id) == sha256
                    lines.append(_line(trial, "download", mib, time.perf_counter() - began, memory))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _line(trial: int, what: str, mib: int, seconds: float, memory: list[float]) -> str:
    before, most = memory
    return (
        f"| {trial + 1} | {what} | {mib:,} MiB | {seconds:.1f} s | {before:.0f} MiB | {most:.0f} MiB "
        f"| {most - before:.0f} MiB |"
    )


if __name__ == "__main__":
    main()
