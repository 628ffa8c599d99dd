"""The real web process on a folder of data, for browsers."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Chromium without a GPU, a sandbox or calls home.
BROWSER = {
    "executable_path": "/usr/bin/chromium",
    "args": [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ],
}


@contextmanager
def dashboard(data: Path) -> Iterator[str]:
    """Gives its address once it answers; ends it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PAREDOWN_DATA": str(data),
        "PAREDOWN_DATABASE_URL": "",
        "PAREDOWN_HOST": "127.0.0.1",
        "PAREDOWN_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "app.main"], env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/health", process)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"the web process ended with {process.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(address)
