"""Parallel streams: each a thread with a session of its own on cores of its own, calling as fast as it can.

The load is closed: a stream sends its next batch when it has the answer to the last, so a latency is the time
of the call itself and holds no queueing. The threads share one Python, which a call in ONNX Runtime lets go.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from workers.base import Session
from workers.host import usable_cores

WARM_UP_CALLS, MIN_CALLS = 1, 2
#: Nobody waits for the last stream of a batch for ever.
START_SECONDS = 300.0


@dataclass(frozen=True)
class Visit:
    """samples_per_s: of all streams together, of each its batch by its mean time of a call, since what Python
    does between calls is ours. latency_ms: (calls,). disturbed: share of calls pushed off their core.
    """

    samples_per_s: float
    latency_ms: np.ndarray
    disturbed: float


@dataclass(frozen=True)
class Streams:
    """Opened sessions, each in a thread that is pinned to its cores."""

    threads: int
    _workers: Sequence[ThreadPoolExecutor]
    _sessions: Sequence[Session]

    def visit(self, samples: np.ndarray, batch: int, seconds: float) -> Visit:
        """Let all streams call at once for so long, and twice at least; samples: (N, …).

        Raises what a call raised.
        """
        longer = np.resize(samples, (len(samples) + batch, *samples.shape[1:]))
        barrier = threading.Barrier(len(self._sessions))
        futures = [
            worker.submit(self._call, session, _batches(longer, batch, number), barrier, seconds)
            for number, (worker, session) in enumerate(zip(self._workers, self._sessions, strict=True))
        ]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:  # one that failed keeps the others from starting: what they say is not why
            own = (error for error in errors if not isinstance(error, threading.BrokenBarrierError))
            raise next(own, errors[0])
        calls = [future.result() for future in futures]
        rate = sum(batch / timed[:, 0].mean() for timed in calls)
        latency_s, disturbed = np.concatenate(calls).T
        return Visit(rate, latency_s * 1000, float(disturbed.mean()))

    def _call(
        self, session: Session, batches: Iterator[np.ndarray], barrier: threading.Barrier, seconds: float
    ) -> np.ndarray:
        """(calls, 2): seconds, and 1 where the call was pushed off its core."""
        try:
            for _ in range(WARM_UP_CALLS):
                session.run(next(batches))
        except BaseException:
            barrier.abort()
            raise
        barrier.wait(START_SECONDS)
        cores = self.threads * len(self._sessions)
        timed: list[tuple[float, bool]] = []
        start = time.perf_counter()
        while len(timed) < MIN_CALLS or time.perf_counter() - start < seconds:
            timed.append(session.timed(next(batches), cores))
        return np.array(timed, float)


@contextmanager
def opened(open_session: Callable[[], Session], threads: int, streams: int) -> Iterator[Streams]:
    """Streams on the cores that the calling thread is pinned to, `threads` each."""
    cores = usable_cores()
    with ExitStack() as kept:
        workers = [kept.enter_context(ThreadPoolExecutor(1)) for _ in range(streams)]
        own = [cores[number * threads : (number + 1) * threads] for number in range(streams)]
        sessions = [
            worker.submit(_open, open_session, some).result()
            for worker, some in zip(workers, own, strict=True)
        ]
        yield Streams(threads, workers, sessions)


def _open(open_session: Callable[[], Session], cores: Sequence[int]) -> Session:
    """The threads of the session inherit the cores of this one."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    return open_session()


def _batches(longer: np.ndarray, batch: int, number: int) -> Iterator[np.ndarray]:
    """Without end, one after another, none copied; each stream begins elsewhere.

    longer: the samples and a batch of them again, so that the last one is whole.
    """
    count = len(longer) - batch
    starts = [(number * count // 7 + place) % count for place in range(0, count, batch)]
    return cycle([longer[start : start + batch] for start in starts])
