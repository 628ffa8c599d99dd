"""How long one call of the exported file takes, and the ratio to the baseline.

Every round calls every artefact on the same real samples, in another order: what disturbs the machine then
disturbs all of them alike, and the ratio holds where the milliseconds do not. The rounds are spread over
several sittings that open the files anew, because where the weights happen to lie in memory alone makes
two identical files differ by 1-2 % until they are opened again.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import quantile_test

from workers.base import Bench, Comparison, Group, Measurement, Progress, Session, Target
from workers.host import pinned
from workers.turns import measuring_turn

SITTINGS = 8
#: In each sitting: 40 to 2,000 rounds in all.
MIN_ROUNDS, MAX_ROUNDS = 5, 250
WARM_UP_ROUNDS = 3
#: With fewer there is no p99: its interval would reach to the slowest call that happened to be seen.
P99_SAMPLES = 662
#: The low end of the calls is what the machine can do when nobody interrupts; noise only adds.
RATIO_QUANTILE = 0.1
RESAMPLES = 1000
#: A point is marked when more than this share of its calls lost the core.
CONTENDED_SHARE = 0.05
#: And when the second half of its sittings was so many times slower.
THROTTLED = 1.1
SAMPLES_BYTES = 64 << 20


#: Of calls along the last axis.
Statistic = Callable[[np.ndarray], np.ndarray]


def _low_end(latency_ms: np.ndarray) -> np.ndarray:
    return np.asarray(np.quantile(latency_ms, RATIO_QUANTILE, axis=-1))


def _mean(latency_ms: np.ndarray) -> np.ndarray:
    """Of all calls: without those that lost their core, too few of the long ones would be left."""
    return np.asarray(latency_ms.mean(axis=-1))


@dataclass(frozen=True)
class Timings:
    """What the rounds gave, one row per artefact."""

    #: (artefacts, sittings, rounds)
    latency_ms: np.ndarray
    #: (artefacts,): share of calls that were pushed off their core.
    disturbed: np.ndarray
    pinned: bool

    def marks(self, *artefacts: int) -> tuple[str, ...]:
        """What weakens a number made from these artefacts."""
        contended = any(self.disturbed[index] > CONTENDED_SHARE for index in artefacts)
        throttled = any(_slowed_down(self.latency_ms[index]) for index in artefacts)
        return (
            *("contended",) * contended, *("throttled",) * throttled, *("unpinned",) * (not self.pinned)
        )  # fmt: skip


def _slowed_down(latency_ms: np.ndarray) -> bool:
    """Whether the machine lost speed for good: every sitting of the second half, at its best, was so much
    slower than any of the first. A short disturbance leaves some of them alone."""
    best = latency_ms.min(axis=1)
    half = len(best) // 2
    return bool(half and best[half:].min() > THROTTLED * best[:half].max())


@dataclass(frozen=True)
class Latency(Comparison):
    """p50, p90, from 662 rounds on p99, and the ratio to the baseline; each with a 95 % interval.

    The ratio is one of 10th percentiles. Files with exits have a mean too, and a ratio of means: their 10th
    percentile is the time of an early sample.

    seconds: time for the rounds of one artefact; slow models take longer, for 40 rounds at least.
    seed: of the samples, the order in a round and the bootstrap.
    """

    title = "Latency"
    unit = "ms"
    better = "lower"

    seconds: float = 4.0
    seed: int = 0

    def compare(
        self, groups: Sequence[Group], fastest: Target | None = None
    ) -> list[Mapping[Path, list[Measurement]]]:
        """As in `Comparison`; the fastest is the one with the lowest 10th percentile, or mean."""
        flat = [(artefact, bench) for artefacts, bench in groups for artefact in artefacts]
        compared = [_low_end if artefact.candidate.exits is None else _mean for artefact, _ in flat]
        timed = [(artefact.file, bench) for artefact, bench in flat]
        timings = self._time(timed)
        found: list[Mapping[Path, list[Measurement]]] = []
        first = 0
        for artefacts, bench in groups:
            places = range(first, first + len(artefacts))
            found.append(
                {timed[at][0]: self._of_one(timings, at, first, bench.target, compared[at]) for at in places}
            )
            first += len(artefacts)
        if fastest is not None:
            found.append(self._fastest(timings, timed, compared, fastest))
        return found

    def ratios(self, files: Sequence[Path], bench: Bench) -> list[float]:
        """Time of each file as a multiple of the first one's; for steps that choose by time."""
        latency_ms = self._time([(file, bench) for file in files]).latency_ms
        return [ratio_to_baseline(times_ms, latency_ms[0], self.seed)[0] for times_ms in latency_ms]

    def _of_one(
        self, timings: Timings, index: int, baseline: int, target: Target, of: Statistic
    ) -> list[Measurement]:
        found = _percentiles(timings, index, target)
        if of is _mean:
            found.append(_mean_call(timings, index, target, self.seed))
        return [*found, _ratio(timings, index, baseline, target, self.seed, of)]

    def _fastest(
        self,
        timings: Timings,
        timed: Sequence[tuple[Path, Bench]],
        compared: Sequence[Statistic],
        target: Target,
    ) -> Mapping[Path, list[Measurement]]:
        calls_ms = timings.latency_ms.reshape(len(timed), -1)
        took = [float(of(one)) for of, one in zip(compared, calls_ms, strict=True)]
        best: dict[Path, int] = {}
        for index, (file, _) in enumerate(timed):
            if file not in best or took[index] < took[best[file]]:
                best[file] = index
        baseline = best[timed[0][0]]
        return {
            file: [
                taken.model_copy(update={"marks": (timed[index][1].target.engine, *taken.marks)})
                for taken in self._of_one(timings, index, baseline, target, compared[index])
            ]
            for file, index in best.items()
        }

    def _time(self, timed: Sequence[tuple[Path, Bench]]) -> Timings:
        """All of them on the samples and the threads of the first bench."""
        bench, threads = timed[0][1], timed[0][1].target.threads
        openers = [partial(bench.runtime.open, file, threads=threads) for file, bench in timed]
        generator = np.random.default_rng(self.seed)
        # Before pinning: torch's thread pool would inherit the few cores and keep them.
        samples = real_samples(bench, self.seed)
        seconds, rounds = self.seconds * len(openers) / SITTINGS, MAX_ROUNDS
        sittings: list[np.ndarray] = []
        with alone(threads) as is_pinned, ExitStack() as kept:
            bench.tell(Progress("latency", 0.0))
            for runtime in {id(bench.runtime): bench.runtime for _, bench in timed}.values():
                kept.enter_context(runtime.ready(threads))
            for sitting in range(SITTINGS):
                seconds = seconds if sitting == 0 else np.inf
                first = samples[sitting * rounds % len(samples) :]  # go on where the last sitting ended
                calls = sit(openers, [*first, *samples], threads, generator, rounds, seconds)
                sittings.append(calls)
                rounds = len(calls)  # as many in every sitting, so that they weigh the same
                bench.tell(Progress("latency", (sitting + 1) / SITTINGS))
        latency_s, disturbed = np.moveaxis(np.array(sittings), (3, 2), (0, 1))
        return Timings(latency_s * 1000, disturbed.mean(axis=(1, 2)), is_pinned)


@contextmanager
def alone(threads: int) -> Iterator[bool]:
    """The host to oneself, for everything that is timed; gives False where threads cannot be pinned."""
    with measuring_turn(), pinned(threads) as is_pinned, _no_garbage_collection():
        yield is_pinned


def sit(
    openers: Sequence[Callable[[], Session]],
    samples: Sequence[np.ndarray],
    threads: int,
    generator: np.random.Generator,
    rounds: int,
    seconds: float,
) -> np.ndarray:
    """Open all artefacts and call them until the rounds or the seconds are over.

    Returns (rounds, artefacts, 2): seconds of the call, and 1 where it was pushed off its core.
    """
    sessions: dict[int, Session] = {}
    for index in generator.permutation(len(openers)):
        sessions[index] = openers[index]()
    for inputs in samples[:WARM_UP_ROUNDS]:
        for session in sessions.values():
            session.run(inputs)
    calls = np.zeros((rounds, len(openers), 2))
    start = time.perf_counter()
    for number in range(rounds):
        if number >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            return calls[:number]
        inputs = samples[number % len(samples)]
        for index in generator.permutation(len(openers)):
            calls[number, index] = sessions[index].timed(inputs, threads, warm=True)
    return calls


def real_samples(bench: Bench, seed: int) -> list[np.ndarray]:
    """Batches of real validation samples, all of the target's size: as many as fit in 64 MiB."""
    size = bench.target.batch
    found: list[np.ndarray] = []
    for inputs, _ in bench.data.batches("validation", size, shuffle=seed):
        batch = inputs.numpy()
        # A short last batch is filled up by starting again.
        found.append(np.resize(batch, (size, *batch.shape[1:])))
        if sum(batch.nbytes for batch in found) >= SAMPLES_BYTES:
            break
    return found


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _percentiles(timings: Timings, index: int, target: Target) -> list[Measurement]:
    """The interval lies between two order statistics and assumes no distribution (Conover 1999, 3.2)."""
    latency_ms = timings.latency_ms[index].ravel()
    found = []
    for share in (0.5, 0.9, 0.99) if latency_ms.size >= P99_SAMPLES else (0.5, 0.9):
        low, high = np.asarray(quantile_test(latency_ms, p=share).confidence_interval())
        numbers = (np.quantile(latency_ms, share), low, high)
        name = f"latency_p{round(100 * share)}"
        found.append(_measurement(name, "ms", numbers, latency_ms.size, target, timings.marks(index)))
    return found


def _mean_call(timings: Timings, index: int, target: Target, seed: int) -> Measurement:
    latency_ms = timings.latency_ms[index]
    numbers = ratio_to_baseline(latency_ms, np.ones_like(latency_ms), seed, _mean)
    return _measurement("latency_mean", "ms", numbers, latency_ms.size, target, timings.marks(index))


def _ratio(
    timings: Timings, index: int, baseline: int, target: Target, seed: int, of: Statistic
) -> Measurement:
    latency_ms, baseline_ms = timings.latency_ms[index], timings.latency_ms[baseline]
    numbers = ratio_to_baseline(latency_ms, baseline_ms, seed, of)
    marks = timings.marks(baseline, index)
    return _measurement("latency_ratio", "x", numbers, latency_ms.size, target, marks)


def _measurement(
    name: str, unit: str, numbers: Sequence[float], samples: int, target: Target, marks: tuple[str, ...]
) -> Measurement:
    value, low, high = map(float, numbers)
    return Measurement(
        name=name,
        value=value,
        low=low,
        high=high,
        unit=unit,
        better="lower",
        split="validation",
        samples=samples,
        target=target,
        marks=marks,
    )


def ratio_to_baseline(
    latency_ms: np.ndarray, baseline_ms: np.ndarray, seed: int, of: Statistic = _low_end
) -> tuple[float, float, float]:
    """Ratio of the 10th percentiles, or `of` something else, and its 95 % interval; both arrays (sittings,
    rounds), paired.

    The same rounds are drawn for both artefacts.
    """
    places = resampled(latency_ms.shape, seed)
    above, below = (of(times_ms.ravel()[places]) for times_ms in (latency_ms, baseline_ms))
    low, high = np.quantile(above / below, [0.025, 0.975])
    value = of(latency_ms.ravel()) / of(baseline_ms.ravel())
    return float(value), float(low), float(high)


def resampled(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """shape: sittings and rounds -> (RESAMPLES, sittings * rounds): places in the flattened array.

    Two-stage bootstrap (Davison & Hinkley 1997, 3.8): sittings are drawn, then rounds within each.
    """
    generator, (sittings, rounds) = np.random.default_rng(seed), shape
    drawn = generator.integers(sittings, size=(RESAMPLES, sittings, 1)) * rounds
    drawn = drawn + generator.integers(rounds, size=(RESAMPLES, sittings, rounds))
    return np.asarray(drawn.reshape(RESAMPLES, -1))
