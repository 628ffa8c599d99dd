"""Who may use the processor: many training processes, or one measurement.

Trainers hold the bench lock shared for one batch, a measurement holds it alone. A measurement would wait
for ever while two trainers overlap, so both first go through a turnstile: a measurement keeps it, a
trainer only passes. The kernel frees the locks of a process that dies.

Knows no model and no job. Turns do not nest: a measurement inside a training batch waits for itself.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.errors import SomethingMissing

#: Not tempfile.gettempdir(): TMPDIR differs between users, and the processor is the same.
#: A string, because joining a Path would cost half as much as the locks.
LOCK_FOLDER: str | Path = "/tmp"


@contextmanager
def training_turn() -> Iterator[None]:
    """Hold this around every batch (about 10 µs); waits while a measurement runs or is due.

    Raises SomethingMissing when the lock files cannot be used.
    """
    with _held("paredown-turnstile.lock", fcntl.LOCK_EX):
        pass
    with _held("paredown-bench.lock", fcntl.LOCK_SH):
        yield


@contextmanager
def measuring_turn() -> Iterator[None]:
    """Wait for the running batches and other measurements to end, then have the host to oneself.

    Raises SomethingMissing when the lock files cannot be used.
    """
    with _held("paredown-turnstile.lock", fcntl.LOCK_EX), _held("paredown-bench.lock", fcntl.LOCK_EX):
        yield


@contextmanager
def _held(name: str, mode: int) -> Iterator[None]:
    descriptor = _open(f"{LOCK_FOLDER}/{name}")
    try:
        fcntl.flock(descriptor, mode)
        yield
    finally:
        # Closing is not enough: a child forked meanwhile shares the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _open(path: str) -> int:
    """Open a lock file for reading, which is all that flock needs; make it when it is not there.

    Anyone may have put something else there first: a link is not followed, a pipe not waited for.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            # Without O_CREAT: Linux forbids that on another user's file in a shared folder.
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            descriptor = _create(path, flags)
    except OSError as error:
        raise _unusable(path, f"the host lock cannot be opened ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unusable(path, "the host lock is not a plain file.")
    return descriptor


def _create(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
    except FileExistsError:  # another process was faster
        return os.open(path, flags)
    os.fchmod(descriptor, 0o444)  # whatever the umask: every user reads it, nobody can fill it
    return descriptor


def _unusable(path: str, what: str) -> SomethingMissing:
    return SomethingMissing(path, what, "Remove it, or let every user of this machine read it.")
