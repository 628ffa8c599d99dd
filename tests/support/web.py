"""The real web process, or all processes, on a folder of their own, for tests and benchmarks."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from db.settings import Settings


@dataclass(frozen=True)
class Web:
    address: str
    pid: int
    settings: Settings


WEB, EVERYTHING = ("app.main",), ("app.cli", "up")


@contextmanager
def serving(data: Path, command: Sequence[str] = WEB, **settings: str) -> Iterator[Web]:
    """`python -m` the command, ready to answer. settings: more of PAREDOWN_*, in lower case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A broker that is not there: uploads must be taken in all the same.
    given = {"data": str(data), "port": str(port), "broker_url": "redis://127.0.0.1:1/0"} | settings
    environment = os.environ | {f"PAREDOWN_{name.upper()}": value for name, value in given.items()}
    process = subprocess.Popen([sys.executable, "-m", *command], env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process)
        yield Web(address, process.pid, Settings(data=data))
    finally:
        process.terminate()
        process.wait(20)


def _wait(address: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError("The web process ended while it started.")
        try:
            httpx.get(f"{address}/api/health").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise TimeoutError(address)
