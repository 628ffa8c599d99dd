"""How long each way out of a model with exits takes, and what a stream of real samples takes.

The protocol is that of `workers.measures.latency`. A path is timed with the composed file itself, its
thresholds set so that every sample takes that exit.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from workers.base import Bench, ExitPlan, Frozen, Progress, Session
from workers.deploy.one_file import set_thresholds
from workers.exits.executor import Executor, onnx_segments
from workers.exits.scores import never
from workers.measures.latency import (
    CONTENDED_SHARE,
    P99_SAMPLES,
    SITTINGS,
    alone,
    real_samples,
    resampled,
    sit,
)
from workers.runtimes.onnxruntime import OnnxRuntime

#: Below every score.
ALWAYS = -1.0
#: In each sitting: enough for a p99, where the seconds allow them.
ROUNDS = -(-P99_SAMPLES // SITTINGS)
STREAM = 100
#: One sample at a time may take so many times the seconds, for the sake of that p99.
ALONE = 5
LEAST_STREAM = 12
#: The mean of a stream may differ by this much from what its paths' times say.
AGREEMENT = 0.03
CONTENDED, DISAGREE = "contended", "paths disagree"

#: Low and high.
Interval = tuple[float, float]


class Spread(Frozen):
    """Latencies of many calls. p99_ms: None for fewer than 662 of them."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    calls: int


class PathTimes(Frozen):
    """One sample at a time.

    path_ms: of a sample that leaves there, one per exit and the end. stream: real samples one after another,
    at the thresholds. share: of the stream's samples, per path. mix_ms: its mean as the path times say.
    marks: CONTENDED, "unpinned", or DISAGREE where mix_ms and the stream's mean do.
    """

    path_ms: tuple[float, ...]
    stream: Spread
    share: tuple[float, ...]
    mix_ms: float
    marks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Whether the times of the ways out explain what samples really took."""
        told = (
            f"A stream of {self.stream.calls:,} real samples took {self.stream.mean_ms:.3f} ms on average, "
            f"{self.mix_ms:.3f} ms by the times of its ways out"
        )
        limit = f"{100 * AGREEMENT:.0f} %"
        if DISAGREE in self.marks:
            return f"{told}: they differ by more than {limit}, so the mean latency is uncertain."
        return f"{told}: they agree within {limit}."


class BatchTimes(Frozen):
    """Real batches: the full path of the file, the file at its thresholds (a batch leaves together), and the
    executor (each row for itself)."""

    batch: int
    full: Spread
    file: Spread
    executor: Spread
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Paths:
    """Milliseconds of a sample that leaves at each exit and at the end, everything before it included, and of
    the baseline. intervals, ratios: 95 % intervals of the paths, and of their ratios to the baseline."""

    path_ms: tuple[float, ...]
    intervals: tuple[Interval, ...] = ()
    baseline_ms: float | None = None
    ratios: tuple[Interval, ...] = ()


def time_paths(
    file: Path,
    exits: int,
    plan: ExitPlan,
    bench: Bench,
    *,
    baseline: Path | None = None,
    seconds: float = 4.0,
) -> Paths:
    """file: composed, with any thresholds. baseline: to be timed in the same session. seconds: for the calls
    of one path."""
    beside = [] if baseline is None else [baseline]
    samples = real_samples(bench, 0)
    with forced_paths(file, exits, plan) as paths, alone(bench.target.threads):
        sittings = list(_sittings(_openers([*paths, *beside], bench), samples, bench, seconds))
    took, drawn_ms = _path_ms(np.concatenate(sittings)), _drawn_ms(np.array(sittings))
    return Paths(
        path_ms=tuple(took[: exits + 1]),
        intervals=_intervals(drawn_ms[: exits + 1]),
        baseline_ms=took[-1] if beside else None,
        ratios=_intervals(drawn_ms[:-1] / drawn_ms[-1]) if beside else (),
    )


def time_stream(file: Path, exits: int, plan: ExitPlan, bench: Bench, *, seconds: float = 4.0) -> PathTimes:
    """The paths, and between their sittings a stream through the file at its own thresholds.

    seconds: for the calls of one path; the stream may take ALONE times as long.
    """
    samples = real_samples(bench, 0)
    places = _places(file, samples)
    path_calls, stream_calls, order = list[np.ndarray](), list[np.ndarray](), list[int]()
    with forced_paths(file, exits, plan) as paths, alone(bench.target.threads) as is_pinned:
        for calls in _sittings(_openers(paths, bench), samples, bench, seconds):
            path_calls.append(calls)
            length = _stream_length(calls, places, ALONE * seconds)
            chosen = np.arange(len(order), len(order) + length) % len(samples)
            stream_calls.append(_replay(file, [samples[index] for index in chosen], bench))
            order += chosen.tolist()
    return _joined(np.concatenate(path_calls), np.concatenate(stream_calls), places[order], is_pinned)


def time_batches(
    file: Path, segments: Sequence[Path], plan: ExitPlan, bench: Bench, *, seconds: float = 4.0
) -> BatchTimes:
    """At the batch size of the bench's target; one sample at a time for ALONE times the seconds."""
    threads, samples = bench.target.threads, real_samples(bench, 0)
    seconds *= ALONE if bench.target.batch == 1 else 1
    with forced_paths(file, len(segments) - 1, plan) as paths, alone(threads) as is_pinned:
        openers = [
            *_openers([paths[-1], file], bench),
            lambda: Executor(onnx_segments(segments, threads=threads), plan),
        ]
        calls = np.concatenate(list(_sittings(openers, samples, bench, seconds)))
    # The three are compared: a round counts where none of them was disturbed.
    quiet = np.logical_not(calls[:, :, 1].any(axis=1))
    full, own, executor = (
        _spread(1000 * calls[:, index, 0], 1000 * _mean(calls[:, index, 0], quiet)) for index in range(3)
    )
    return BatchTimes(
        batch=bench.target.batch,
        full=full,
        file=own,
        executor=executor,
        marks=_marks(calls[:, :, 1].mean(axis=0).max(), is_pinned),
    )


@contextmanager
def forced_paths(file: Path, exits: int, plan: ExitPlan) -> Iterator[list[Path]]:
    """Copies of the file that always leave at exit 1, 2 … and at the end."""
    closed = [never(plan.score, exits)] * exits
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for place in range(exits + 1):
            copies.append(Path(shutil.copyfile(file, Path(folder) / f"path_{place + 1}.onnx")))
            thresholds = list(closed)
            if place < exits:
                thresholds[place] = ALWAYS
            set_thresholds(copies[-1], thresholds)
        yield copies


def _openers(files: Sequence[Path], bench: Bench) -> list[Callable[[], Session]]:
    return [partial(OnnxRuntime().open, file, threads=bench.target.threads) for file in files]


def _sittings(
    openers: Sequence[Callable[[], Session]], samples: Sequence[np.ndarray], bench: Bench, seconds: float
) -> Iterator[np.ndarray]:
    """Calls (rounds, openers, 2) of each sitting; the samples go on from one to the next."""
    generator, rounds, limit = np.random.default_rng(0), ROUNDS, seconds * len(openers) / SITTINGS
    for sitting in range(SITTINGS):
        rest = samples[sitting * rounds % len(samples) :]
        calls = sit(openers, [*rest, *samples], bench.target.threads, generator, rounds, limit)
        rounds, limit = len(calls), np.inf
        bench.tell(Progress(f"path times, batch {bench.target.batch}", (sitting + 1) / SITTINGS))
        yield calls


def _stream_length(calls: np.ndarray, places: np.ndarray, seconds: float) -> int:
    """How many samples of the stream the seconds of all sittings allow in one."""
    one_s = float(np.median(calls[:, :, 0], axis=0)[places].mean())
    return int(np.clip(seconds / SITTINGS / one_s, LEAST_STREAM, STREAM))


def _replay(file: Path, stream: Sequence[np.ndarray], bench: Bench) -> np.ndarray:
    """Real samples one after another: (samples, 2), as in `sit`."""
    session = OnnxRuntime().open(file, threads=bench.target.threads)
    for inputs in stream[:3]:
        session.run(inputs)
    return np.array([session.timed(inputs, bench.target.threads) for inputs in stream])


def _places(file: Path, samples: Sequence[np.ndarray]) -> np.ndarray:
    """Where each sample leaves, from 0."""
    session = OnnxRuntime().open(file, threads=1)
    return np.array([int(session.outputs(inputs)[1][0]) - 1 for inputs in samples])


def _joined(paths: np.ndarray, stream: np.ndarray, places: np.ndarray, is_pinned: bool) -> PathTimes:
    path_ms = _path_ms(paths)
    share = np.bincount(places, minlength=len(path_ms)) / len(places)
    # Longer calls are disturbed more often: leaving those out must not change the share of the paths.
    quiet = stream[:, 1] == 0
    mean_ms = sum(
        share[place] * 1000 * _mean(stream[places == place, 0], quiet[places == place])
        for place in range(len(path_ms))
        if share[place] > 0
    )
    mix_ms = float(share @ path_ms)
    disturbed = max(paths[:, :, 1].mean(axis=0).max(), stream[:, 1].mean())
    differ = abs(mean_ms / mix_ms - 1) > AGREEMENT
    return PathTimes(
        path_ms=tuple(path_ms),
        stream=_spread(1000 * stream[:, 0], mean_ms),
        share=tuple(share.tolist()),
        mix_ms=mix_ms,
        marks=_marks(disturbed, is_pinned) + (DISAGREE,) * bool(differ),
    )


def _path_ms(calls: np.ndarray) -> list[float]:
    """calls: (rounds, paths, 2) -> the mean of each path's undisturbed calls."""
    return [1000 * _mean(calls[:, place, 0], calls[:, place, 1] == 0) for place in range(calls.shape[1])]


def _drawn_ms(calls: np.ndarray) -> np.ndarray:
    """calls: (sittings, rounds, paths, 2) -> (paths, RESAMPLES): the means that other rounds would give, over
    the undisturbed calls where there are any."""
    places = resampled(calls.shape[:2], seed=0)
    drawn = []
    for seconds, disturbed in calls.reshape(-1, *calls.shape[2:]).transpose(1, 2, 0):
        quiet = (disturbed == 0)[places]
        sums, counts = (seconds[places] * quiet).sum(axis=1), quiet.sum(axis=1)
        drawn.append(np.where(counts > 0, sums / np.maximum(counts, 1), seconds[places].mean(axis=1)))
    return 1000 * np.array(drawn)


def _intervals(values: np.ndarray) -> tuple[Interval, ...]:
    low, high = np.quantile(values, [0.025, 0.975], axis=-1).tolist()
    return tuple(zip(low, high, strict=True))


def _mean(seconds: np.ndarray, quiet: np.ndarray) -> float:
    """Over the undisturbed calls, where there are any."""
    return float(seconds[quiet].mean() if quiet.any() else seconds.mean())


def _spread(latency_ms: np.ndarray, mean_ms: float) -> Spread:
    p50, p90, p99 = np.quantile(latency_ms, [0.5, 0.9, 0.99]).tolist()
    return Spread(
        mean_ms=mean_ms,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99 if latency_ms.size >= P99_SAMPLES else None,
        calls=latency_ms.size,
    )


def _marks(disturbed: float, is_pinned: bool) -> tuple[str, ...]:
    return (CONTENDED,) * bool(disturbed > CONTENDED_SHARE) + ("unpinned",) * (not is_pinned)
