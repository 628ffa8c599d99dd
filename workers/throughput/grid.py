"""What a throughput grid holds, and which of its cells is best under a latency limit.

A cell is one way to serve a file: so many streams at once, each with a session of its own on so many threads,
each call with so many samples. Knows no runtime and no clock.
"""

from collections.abc import Iterable, Sequence

from workers.base import Frozen

BATCHES = (1, 2, 4, 8, 16, 32)
#: A cell is on the front until another one is this much better at no longer a latency: rates are noisy.
CLEARLY = 1.1


class Way(Frozen):
    """streams: calls that run at the same time, each on `threads` threads and with `batch` samples."""

    threads: int
    streams: int
    batch: int

    @property
    def cores(self) -> int:
        return self.threads * self.streams

    @property
    def parallel(self) -> str:
        """2 streams × 1 thread"""
        return f"{_counted(self.streams, 'stream')} × {_counted(self.threads, 'thread')}"

    def __str__(self) -> str:
        return f"{self.parallel}, batch {self.batch}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


class Cell(Frozen):
    """What was measured of one way; without calls nothing was.

    samples_per_s: median over the visits; low, high: the slowest and the fastest visit. Latencies are those
    of one call of one stream, with all streams at work. p99_ms: None where there were too few calls for it.
    """

    way: Way
    calls: int = 0
    samples_per_s: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float | None = None
    marks: tuple[str, ...] = ()

    @property
    def tail(self) -> tuple[str, float]:
        """The highest percentile that the calls are enough for: its name and ms. A limit holds against it."""
        return ("p90", self.p90_ms) if self.p99_ms is None else ("p99", self.p99_ms)


class Grid(Frozen):
    """The cells of one file on one machine. seconds: the budget. notes: what was not measured, and why."""

    cores: int
    seconds: float
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.calls)


def ways(cores: int, batches: Sequence[int]) -> list[Way]:
    """Every threads × streams that fits on the cores, in powers of two and all of them, with every batch."""
    counts = sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})
    return [
        Way(threads=threads, streams=streams, batch=batch)
        for threads in counts
        for streams in counts
        if threads * streams <= cores
        for batch in batches
    ]


def best_under(cells: Iterable[Cell], limit_ms: float | None) -> Cell | None:
    """The most samples per second of those whose tail latency is within the limit; None where none is."""
    fitting = [cell for cell in cells if cell.calls and (limit_ms is None or cell.tail[1] <= limit_ms)]
    return max(fitting, key=lambda cell: cell.samples_per_s, default=None)


def front(cells: Iterable[Cell]) -> list[Cell]:
    """Those that may be best under some limit: no other, at no longer a tail latency, clearly gives more than
    their fastest visit did."""
    measured = [cell for cell in cells if cell.calls]
    return [
        cell
        for cell in measured
        if not any(
            other.tail[1] <= cell.tail[1]
            and other.samples_per_s > CLEARLY * max(cell.high, cell.samples_per_s)
            for other in measured
        )
    ]
