"""One command for everything: starts broker, web and worker, and starts again what dies.

Every process is tied to this one (`workers/lifeline.py`): however this one ends, none is left behind.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from filelock import FileLock, Timeout

from app.broker import broker_command
from db.session import migrate
from db.settings import Settings
from workers.errors import ParedownError
from workers.lifeline import tied

WEB = [sys.executable, "-m", "app.main"]
WORKER = [sys.executable, "-m", "app.cli", "worker"]
#: A process that lived this long was well; its next restart is at once again.
HEALTHY_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 4.0
#: From being told to end to being killed.
GRACE_SECONDS = 3.0


@dataclass
class Child:
    """One process that is kept alive; what it prints goes into `log`."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0
    restarts: int = -1

    def tend(self) -> None:
        """Start it when it is not there and its pause is over."""
        if self.process is not None and self.process.poll() is None:
            return
        now = time.monotonic()
        if self.process is not None:
            healthy = now - self.started > HEALTHY_SECONDS
            self.pause = 0.0 if healthy else min(2 * self.pause + 0.25, LONGEST_PAUSE_SECONDS)
            self.process, self.started = None, now
        if now - self.started >= self.pause:
            self._start(now)

    def _start(self, now: float) -> None:
        self.started, self.restarts = now, self.restarts + 1
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal reaches the supervisor alone, which ends the others.
            self.process = subprocess.Popen(
                tied(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """`with Supervisor(settings) as supervisor: supervisor.run()`; leaving ends every process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = False
        settings.logs.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(settings.data / "supervisor.lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise ParedownError(
                str(settings.data), "is in use: Paredown runs there already.",
                "Open its page, end it first, or choose another folder with PAREDOWN_DATA.",
            ) from error  # fmt: skip
        self.port = free_port(settings.host, settings.port)
        self.address = f"http://{_reachable(settings.host)}:{self.port}"
        migrate(settings.database)
        self.children = self._plan()

    def _plan(self) -> list[Child]:
        logs = self.settings.logs
        web = {"PAREDOWN_PORT": str(self.port), "PAREDOWN_HOST": self.settings.host}
        children = [
            Child("web", WEB, logs / "web.log", web),
            Child("worker", WORKER, logs / "worker.log"),
        ]
        if not self.settings.broker_url:
            children.insert(0, Child("broker", broker_command(self.settings), logs / "broker.log"))
        return children

    def __enter__(self) -> "Supervisor":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        self.tend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All are told to end, then killed; at most GRACE_SECONDS."""
        for child in self.children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self.children:
            if child.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, deadline - time.monotonic()))
                child.signal(signal.SIGKILL)
                child.process.wait()
        if not self.settings.broker_url:
            shutil.rmtree(self.settings.broker_socket.parent, ignore_errors=True)
        self._lock.release()

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.stopping = True

    def run(self) -> None:
        """Until Ctrl-C or SIGTERM."""
        while not self.stopping:
            self.tend()
            time.sleep(0.2)

    def tend(self) -> None:
        for child in self.children:
            child.tend()

    def web_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/api/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def free_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody listens on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ParedownError(f"port {first}", "and the 99 after it are taken.", "Set PAREDOWN_PORT to a free one.")


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
