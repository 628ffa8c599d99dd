"""Which cells are visited, in which order, until the budget is spent.

First every cell is visited twice, in shuffled order; then, again and again, those that may be best under some
latency limit, the least visited first. The host is given back between visits; waiting for it is not counted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from workers.base import Progress, Runtime
from workers.errors import ModelRefused
from workers.measures.latency import CONTENDED_SHARE, P99_SAMPLES, alone
from workers.throughput.grid import BATCHES, Cell, Grid, Way, front, ways
from workers.throughput.streams import Visit, opened
from workers.turns import training_turn

#: Of the budget, for the first visits; two, so that a neighbour's burst does not rule a cell out.
FIRST_SHARE, FIRST_VISITS = 0.5, 2
VISIT_SECONDS = (0.05, 1.0)
#: Of a visit to a cell that is looked at more closely.
CLOSER_SECONDS = 1.5


@dataclass
class _Known:
    """why: calls failed, for this reason; then there are no numbers."""

    visits: list[Visit] = field(default_factory=list)
    pinned: bool = True
    why: str = ""

    @property
    def calls(self) -> int:
        return sum(len(visit.latency_ms) for visit in self.visits)

    def cell(self, way: Way) -> Cell:
        if self.why or not self.visits:
            return Cell(way=way)
        rates = [visit.samples_per_s for visit in self.visits]
        latency_ms = np.concatenate([visit.latency_ms for visit in self.visits])
        p50, p90, p99 = map(float, np.quantile(latency_ms, (0.5, 0.9, 0.99)))
        calls = [len(visit.latency_ms) for visit in self.visits]
        contended = np.average([v.disturbed for v in self.visits], weights=calls) > CONTENDED_SHARE
        return Cell(
            way=way,
            calls=self.calls,
            samples_per_s=float(np.median(rates)),
            low=min(rates),
            high=max(rates),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99 if self.calls >= P99_SAMPLES else None,
            marks=("contended",) * bool(contended) + ("unpinned",) * (not self.pinned),
        )


def measure_grid(
    runtime: Runtime,
    file: Path,
    samples: np.ndarray,
    *,
    cores: int,
    seconds: float,
    seed: int = 0,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Grid:
    """Fill a grid within about `seconds`; samples: (N, …) real ones. Cells that fail are left out.

    Raises ModelRefused for a file that runs no batch at all.
    """
    search = _Search(runtime, file, samples, cores, seconds, seed, tell)
    return search.run(*possible_batches(runtime, file, samples))


def possible_batches(runtime: Runtime, file: Path, samples: np.ndarray) -> tuple[list[int], list[str]]:
    """The batches that the file takes, and a sentence on the others; a file that takes 1 and 2 takes all."""
    session = runtime.open(file, threads=1)
    why: dict[int, str] = {}
    for batch in BATCHES:
        if batch > 2 and not why:
            break
        try:
            with training_turn():  # not timed, and not to disturb what is
                session.run(np.resize(samples, (batch, *samples.shape[1:])))
        except Exception as error:  # noqa: BLE001 - the errors of runtimes share no other base
            why[batch] = _first_line(error)
    first = next(iter(why.values()), "")
    if len(why) == len(BATCHES):
        raise ModelRefused(file.name, f"runs no batch: {first}", "Export it with a dynamic batch.")
    refused = f"The file does not take batches of {', '.join(map(str, why))}: {first}"
    return [batch for batch in BATCHES if batch not in why], [refused] * bool(why)


def _first_line(error: Exception) -> str:
    """Of what it says, or what it is called where it says nothing."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


@dataclass
class _Search:
    runtime: Runtime
    file: Path
    samples: np.ndarray
    cores: int
    seconds: float
    seed: int
    tell: Callable[[Progress], None]

    def run(self, batches: Sequence[int], notes: Sequence[str]) -> Grid:
        self._known = {way: _Known() for way in ways(self.cores, batches)}
        self._spent = 0.0
        self._first_visits()
        self._closer_visits()
        why = {str(way): known.why for way, known in self._known.items() if known.why}
        first = next((f"{way}: {said}" for way, said in why.items()), "")
        if len(why) == len(self._known):
            raise ModelRefused(self.file.name, f"runs in no way. {first}", "Free memory, then measure again.")
        failed = f"{len(why)} of {len(self._known)} cells are left out, since calls failed. {first}"
        missed = sum(not known.visits and not known.why for known in self._known.values())
        late = f"{missed} of {len(self._known)} cells were not reached within {self.seconds:g} seconds."
        return Grid(
            cores=self.cores,
            seconds=self.seconds,
            cells=tuple(known.cell(way) for way, known in self._known.items()),
            notes=(*notes, *[failed] * bool(why), *[late] * bool(missed)),
        )

    def _first_visits(self) -> None:
        generator = np.random.default_rng(self.seed)
        least, most = VISIT_SECONDS
        seconds = min(max(FIRST_SHARE * self.seconds / len(self._known) / FIRST_VISITS, least), most)
        together = [list(some) for _, some in groupby(self._known, lambda way: (way.threads, way.streams))]
        for _ in range(FIRST_VISITS):
            for index in generator.permutation(len(together)):
                some = together[index]
                self._visit([some[place] for place in generator.permutation(len(some))], seconds)

    def _closer_visits(self) -> None:
        while not self._over():
            promising = [cell.way for cell in front(known.cell(way) for way, known in self._known.items())]
            if not promising:
                return
            fewest = min(promising, key=lambda way: (len(self._known[way].visits), self._known[way].calls))
            self._visit([fewest], min(CLOSER_SECONDS, self._left()))

    def _visit(self, some: Sequence[Way], seconds: float) -> None:
        """All with as many threads and streams: the sessions are opened once."""
        some = [way for way in some if not self._known[way].why]
        if self._over() or not some:
            return
        threads, streams = some[0].threads, some[0].streams
        open_session = partial(self.runtime.open, self.file, threads=threads)
        with alone(threads * streams) as pinned, ExitStack() as kept:
            start = time.perf_counter() - self._spent
            with self._blaming(some):
                ready = kept.enter_context(opened(open_session, threads, streams))
            for way in some:
                known = self._known[way]
                if not known.why:
                    with self._blaming([way]):
                        known.visits.append(ready.visit(self.samples, way.batch, seconds))
                known.pinned = pinned
                self._spent = time.perf_counter() - start
                self.tell(Progress(str(way), min(1.0, self._spent / self.seconds)))
                if self._over():
                    return

    @contextmanager
    def _blaming(self, some: Sequence[Way]) -> Iterator[None]:
        """What goes wrong inside is why these have no numbers."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the errors of runtimes share no other base
            for way in some:
                self._known[way].why = _first_line(error)

    def _left(self) -> float:
        return max(0.0, self.seconds - self._spent)

    def _over(self) -> bool:
        return self._left() <= 0
