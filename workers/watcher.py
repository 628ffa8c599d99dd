"""Claims jobs, gives each to a fresh process, and says to the database that it is alive.

The heartbeat comes from here because a job that holds the interpreter must not look dead. A process is
started ahead and waits with everything imported, so a job starts at once; it serves one job and ends.
Never imports torch: this process is cheap and can be restarted at any time.
"""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout
from sqlalchemy.orm import Session

from db import jobs, workers
from db.session import transaction
from db.settings import Settings
from workers.lifeline import tied

LOOK_SECONDS = 2.0
BEAT_SECONDS = 1.0
#: What nobody goes back to, once it has not been written to for this time: files of measurements, by code and
#: stage; what jobs had written half; tables of predictors that were never finished. And files that can be
#: fetched again, which are touched when they are used.
KEPT_SECONDS = 7 * 24 * 3600.0
KEPT = ("measured/*/*/*.partial", "measured/*/*", "peaks/*.partial", "predictors/*", "fetched/*/*")
log = logging.getLogger(__name__)


class Watcher:
    """One worker: at most one running job. wake(job_id): tells the other workers."""

    def __init__(self, settings: Settings, queues: Sequence[str], wake: Callable[[str], None]) -> None:
        self.settings, self.queues, self.wake = settings, tuple(queues), wake
        self.woken = threading.Event()
        self._stopping = False
        self._lock = _name_lock(settings.data, self.queues)
        self.name = Path(self._lock.lock_file).stem
        self._report()  # before the process that describes this worker
        self._standby = self._start_process()

    def run(self) -> None:
        """Until SIGTERM or SIGINT; then a running job is given back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # Whoever holds the name's lock is the only process of that name: its earlier jobs are orphans.
        with self._database() as session:
            orphans = jobs.reclaim(session, self.name)
        log.info("%s takes from %s; found again: %s", self.name, ", ".join(self.queues), orphans or "nothing")
        sweep(self.settings.data)
        try:
            while not self._stopping:
                self._look()
        finally:
            _kill(self._standby)
            with contextlib.suppress(Exception), self._database() as session:
                workers.gone(session, self.name)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stopping = True
        self.woken.set()

    def _look(self) -> None:
        """Do the oldest job of our queues, or wait for a call."""
        self.woken.clear()
        try:
            self._report()
            with self._database() as session:
                claimed = jobs.claim_next(session, self.queues, self.name)
        except Exception:  # a database that is away comes back
            log.exception("Database not reached; trying again.")
            claimed = None
        if claimed is None:
            self.woken.wait(LOOK_SECONDS)
        else:
            self._do(*claimed)

    def _report(self) -> None:
        """We are there; and whoever is not any more loses its jobs."""
        with self._database() as session:
            workers.seen(session, self.name, queues=self.queues, device=self.settings.device)
            lost, moved = jobs.reap(session), jobs.leave_gpu(session)
        for job_id in lost:
            log.warning("Job %s lost its worker and waits again.", job_id)
        for job_id in (*lost, *moved):
            self.wake(job_id)

    def _do(self, job_id: str, attempt: int) -> None:
        """Hand the job to the waiting process and stay with it to its end."""
        if self._standby.poll() is not None:
            self._standby = self._start_process()
        process, self._standby = self._standby, self._start_process()
        log.info("Job %s, attempt %d: process %d", job_id, attempt, process.pid)
        assert process.stdin
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(f"{job_id} {attempt}\n")
        ending = self._stay(process, job_id, attempt)
        _kill(process)
        log.info("Job %s: %s", job_id, ending or f"process ended with {process.returncode}")
        self._settle(job_id, attempt, ending, process.returncode)
        shutil.rmtree(self.settings.data / "jobs" / job_id, ignore_errors=True)
        sweep(self.settings.data)

    def _stay(self, process: "subprocess.Popen[str]", job_id: str, attempt: int) -> str:
        """Beat until the process ends or must end; says "cancelled" or "released" when that is why."""
        while process.poll() is None:
            if self._stopping:
                return "released"
            try:
                self._report()
                with self._database() as session:
                    cancelled = jobs.heartbeat(session, job_id, attempt)
            except Exception:  # the lease lasts a while; the job goes on meanwhile
                log.exception("No heartbeat for job %s; trying again.", job_id)
                cancelled = False
            if cancelled:
                return "cancelled"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2 * BEAT_SECONDS if cancelled is None else BEAT_SECONDS)
            if cancelled is None:  # it told its own end and had a moment to go, or belongs to another worker
                return ""
        return ""

    def _settle(self, job_id: str, attempt: int, ending: str, code: int) -> None:
        """Tell the database how the process ended; changes nothing when the job is no longer ours."""
        with self._database() as session:
            if ending == "cancelled":
                jobs.end(session, job_id, attempt, "cancelled")
            elif ending == "released":
                jobs.release(session, job_id, attempt)
            else:
                reason = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                jobs.lose(session, job_id, attempt, f"The job's process ended {reason}.")

    def _database(self) -> contextlib.AbstractContextManager[Session]:
        return transaction(self.settings.database)

    def _start_process(self) -> "subprocess.Popen[str]":
        """A job's process, waiting for an id; its own group, so that all of it can be ended at once."""
        command = [sys.executable, "-m", "workers.job", self.name]
        # Threads that spin while they wait make each other wait when the cores are shared.
        calm = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.Popen(
            tied(command), stdin=subprocess.PIPE, start_new_session=True, text=True, env=calm
        )


def _kill(process: "subprocess.Popen[str]") -> None:
    """End the whole group and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin and not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _name_lock(data: Path, queues: Sequence[str]) -> FileLock:
    """The first free name on this host for a worker of these queues; the kernel frees it with the process.

    A restarted worker gets the name of the one that died, and knows by the lock that it is dead.
    """
    folder = data / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        lock = FileLock(folder / f"{name_here(queues)}-{number}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            number += 1
        else:
            return lock


def name_here(queues: Sequence[str]) -> str:
    """What this host's workers of these queues are called, but for their number."""
    return f"{socket.gethostname()}-{'+'.join(queues)}"


def sweep(data: Path) -> None:
    """Remove what killed processes left half-written: stages whose lock nobody holds; and what is old."""
    for partial in (data / "stages").glob("*.partial"):
        with contextlib.suppress(Timeout), FileLock(partial.with_suffix(".lock"), blocking=False):
            shutil.rmtree(partial, ignore_errors=True)
    oldest = time.time() - KEPT_SECONDS
    for left in (left for pattern in KEPT for left in data.glob(pattern)):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < oldest:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    for code in data.glob("measured/*"):
        with contextlib.suppress(OSError):  # of a code that has something left
            code.rmdir()
