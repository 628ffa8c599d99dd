"""The table of a file's layers: time, arithmetic and bytes of each, and how near it comes to its roof."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from workers.base import Bench, Frozen
from workers.measures.latency import CONTENDED_SHARE, real_samples
from workers.profiling.bookkeeping import typical
from workers.profiling.matching import Layer, Layers
from workers.profiling.peaks import Peaks
from workers.profiling.recording import Recording, record


class LayerTime(Frozen):
    """One row. ms: mean per sample, with half its 95 % interval; roof_ms: the least that this machine allows.

    macs, moved_bytes: means per sample too. reached: share of the samples that get there.
    """

    name: str
    kind: str
    weighted: bool
    precision: str
    ms: float
    spread_ms: float
    macs: float
    moved_bytes: float
    roof_ms: float
    reached: float


class Profile(Frozen):
    """latency_ms: of the whole call, taken without the profile on the same samples.

    layers: in the order in which they run. added: what the runtime puts between them (other orders of
    numbers, other formats), as one row. calls: that every time comes from. marks: what weakens the numbers.
    """

    latency_ms: float
    layers: tuple[LayerTime, ...]
    added: LayerTime | None
    peaks: Peaks
    calls: int
    marks: tuple[str, ...]

    @property
    def rest_ms(self) -> float:
        """Of the whole call what no operator takes: calling, and going from one to the next."""
        timed = [*self.layers, *([self.added] if self.added else [])]
        return self.latency_ms - sum(row.ms for row in timed)


def profile(files: Sequence[Path], bench: Bench, peaks: Peaks, *, seconds: float = 6.0) -> list[Profile]:
    """One profile per file, recorded side by side on the bench's validation samples."""
    recordings = record(files, real_samples(bench, 0), seconds=seconds, tell=bench.tell)
    return [
        _profile(recording, Layers(file, list(recording.operators.values())), peaks)
        for file, recording in zip(files, recordings, strict=True)
    ]


def _profile(recording: Recording, layers: Layers, peaks: Peaks) -> Profile:
    rows: list[LayerTime] = []
    added: list[tuple[str, LayerTime]] = []
    names: Counter[str] = Counter()
    for key, operator in recording.operators.items():
        layer = layers.of(operator)
        if layer is None:
            unknown = Layer("", operator.kind, False, "", 0, operator.moved_bytes)
            added.append((operator.kind, _row(recording, key, unknown, peaks)))
            continue
        names[layer.name] += 1
        row = _row(recording, key, layer, peaks)
        again = names[layer.name]
        rows.append(row if again == 1 else row.model_copy(update={"name": f"{layer.name} ({again})"}))
    return Profile(
        latency_ms=_whole_ms(recording),
        layers=tuple(rows),
        added=_together(added),
        peaks=peaks,
        calls=sum(map(len, recording.calls)),
        marks=_marks(recording),
    )


def _marks(recording: Recording) -> tuple[str, ...]:
    contended = recording.disturbed > CONTENDED_SHARE
    return ("contended",) * contended + ("unpinned",) * (not recording.pinned)


def _row(recording: Recording, key: str, layer: Layer, peaks: Peaks) -> LayerTime:
    taken = [[call[key] for call in calls if key in call] for calls in recording.calls]
    reached = sum(map(len, taken)) / sum(map(len, recording.calls))
    sittings_ms = [typical(times) / 1000 for times in taken if times]
    ms = float(np.median(sittings_ms))  # one sitting may meet a busy neighbour
    error_ms = stats.sem(sittings_ms) if len(sittings_ms) > 1 else 0.0
    spread_ms = float(error_ms * stats.t.ppf(0.975, max(1, len(sittings_ms) - 1)))
    return LayerTime(
        name=layer.name,
        kind=layer.kind,
        weighted=layer.weighted,
        precision=layer.precision,
        ms=ms * reached,
        spread_ms=spread_ms * reached,
        macs=layer.macs * reached,
        moved_bytes=layer.moved_bytes * reached,
        roof_ms=peaks.roof_ms(layer.macs, layer.moved_bytes, layer.precision) * reached,
        reached=reached,
    )


def _together(added: Sequence[tuple[str, LayerTime]]) -> LayerTime | None:
    """One row of what belongs to no layer; its roof is none, since it need not be there."""
    if not added:
        return None
    kinds = Counter(kind for kind, _ in added)
    return LayerTime(
        name="Reorder, quantize, other",
        kind=", ".join(f"{kind} ×{count}" for kind, count in kinds.most_common()),
        weighted=False,
        precision="",
        ms=sum(row.ms for _, row in added),
        spread_ms=float(np.hypot.reduce([row.spread_ms for _, row in added])),
        macs=0,
        moved_bytes=sum(row.moved_bytes for _, row in added),
        roof_ms=0,
        reached=max(row.reached for _, row in added),
    )


def _whole_ms(recording: Recording) -> float:
    """Mean per sample; calls that ran other operators are other ways through a file with exits."""
    ways: dict[frozenset[str], list[list[float]]] = {}
    for sitting, (calls, whole_us) in enumerate(zip(recording.calls, recording.whole_us, strict=True)):
        for call, taken_us in zip(calls, whole_us.tolist(), strict=True):
            way = ways.setdefault(frozenset(call), [[] for _ in recording.calls])
            way[sitting].append(taken_us)
    total = sum(map(len, recording.calls))
    return sum(
        sum(map(len, way)) / total * float(np.median([typical(taken) for taken in way if taken])) / 1000
        for way in ways.values()
    )
