"""Where the time of a file goes, as tables: one row per layer, and two files beside each other."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from app import numbers
from workers.profiling.profile import LayerTime, Profile

WITHOUT_WEIGHTS = "Operators without weights"
REST = "Between operators"
COLUMNS = (
    "place", "name", "kind", "weighted", "ms", "spread", "precision", "macs", "gflops", "of_roof",
    "intensity", "reached",
)  # fmt: skip
#: Layers that together take this share of the time are named in the sentence, up to so many.
MAJORITY, NAMED = 0.5, 3


@dataclass(frozen=True)
class Found:
    """A profile as it was kept. session: the same for files that were profiled side by side."""

    session: str
    target: Mapping[str, Any]
    taken_at: float
    profile: Profile

    @classmethod
    def of(cls, document: Mapping[str, Any], target: Mapping[str, Any], taken_at: float) -> "Found":
        told = {name: value for name, value in document.items() if name not in ("session", "file_sha256")}
        return cls(document["session"], target, taken_at, Profile.model_validate(told))


def layers_frame(profile: Profile) -> pd.DataFrame:
    """Columns `place` (in which order it runs), `name`, `kind`, `weighted`, `ms`, `spread`, `share`,
    `precision`, `macs`, `gflops`, `of_roof` (share of the speed that the roof allows), `intensity`
    (operations per byte), `reached`. The last rows are of no layer."""
    rows = [_row(layer, place) for place, layer in enumerate(profile.layers)]
    if profile.added is not None:
        rows.append(_row(profile.added, len(rows)))
    rest = {"place": len(rows), "name": REST, "kind": "", "weighted": False, "ms": profile.rest_ms}
    frame = pd.DataFrame([*rows, rest | {"reached": 1.0}], columns=COLUMNS)
    frame["share"] = frame["ms"] / profile.latency_ms
    return frame


def _row(layer: LayerTime, place: int) -> dict[str, Any]:
    timed = layer.ms > 0
    return {
        "place": place,
        "name": layer.name,
        "kind": layer.kind,
        "weighted": layer.weighted,
        "ms": layer.ms,
        "spread": layer.spread_ms,
        "precision": layer.precision or None,
        "macs": layer.macs or None,
        "gflops": 2e-6 * layer.macs / layer.ms if timed and layer.macs else None,
        "of_roof": layer.roof_ms / layer.ms if timed and layer.roof_ms else None,
        "intensity": 2 * layer.macs / layer.moved_bytes if layer.macs and layer.moved_bytes else None,
        "reached": layer.reached,
    }


def compared(before: Profile, after: Profile) -> pd.DataFrame:
    """One row per layer of the model as it was, in its order; what became of it is summed up.

    Columns `name`, and for both `ms`, `macs`, `precision` with `_before` and `_after`. A layer that was split
    in two (`conv1.0` and `conv1.1`) counts as the one it was made from.
    """
    old, new = layers_frame(before), layers_frame(after)
    known = {str(name) for name in old.loc[old["weighted"], "name"]}
    sides = [_by_origin(frame, known).add_suffix(side) for frame, side in ((old, "_before"), (new, "_after"))]
    merged = sides[0].join(sides[1], how="outer")
    order = list(dict.fromkeys([*sides[0].index, *sides[1].index]))
    last = [name for name in (WITHOUT_WEIGHTS, *_OF_NO_LAYER) if name in order]
    return merged.loc[[name for name in order if name not in last] + last].reset_index(names="name")


_OF_NO_LAYER = ("Reorder, quantize, other", REST)


def _by_origin(frame: pd.DataFrame, known: Iterable[str]) -> pd.DataFrame:
    names = set(known)
    origins = [
        _origin(str(name), names) if weighted else name if name in _OF_NO_LAYER else WITHOUT_WEIGHTS
        for name, weighted in zip(frame["name"], frame["weighted"], strict=True)
    ]
    grouped = frame.groupby(pd.Series(origins, frame.index), sort=False)
    return pd.DataFrame(
        {
            "ms": grouped["ms"].sum(),
            "macs": grouped["macs"].sum(min_count=1),
            "precision": grouped["precision"].agg(lambda given: ", ".join(sorted(set(given.dropna())))),
        }
    )


def _origin(name: str, known: set[str]) -> str:
    """The longest beginning of a dotted name that is a layer of the other file; itself where none is."""
    parts = name.split(".")
    beginnings = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((beginning for beginning in beginnings if beginning in known), name)


def speed(gflops: float, precision: str | None) -> str:
    """125 GFLOP/s; of integers GOP/s. Two digits at least, however slow."""
    unit = "GOP/s" if precision == "int8" else "GFLOP/s"
    digits = max(0, 1 - math.floor(math.log10(gflops)))
    return f"{gflops:,.{digits}f}{numbers.NARROW}{unit}"


def bytes_speed(gbytes: float) -> str:
    return f"{gbytes:,.0f}{numbers.NARROW}GB/s"


def sentence(profile: Profile) -> str:
    """Where most of the time goes."""
    slowest = sorted(profile.layers, key=lambda layer: -layer.ms)
    if not slowest:
        return "No layer of this file was timed."
    whole, names, taken_ms = numbers.milliseconds(profile.latency_ms), list[str](), 0.0
    for layer in slowest:
        names.append(layer.name)
        taken_ms += layer.ms
        if taken_ms >= MAJORITY * profile.latency_ms:
            break
    share = numbers.share(taken_ms / profile.latency_ms, 0)
    if len(names) > NAMED:
        return (
            f"The {len(names)} slowest of {len(slowest)} layers take {share} of {whole}; the slowest, "
            f"{names[0]}, takes {numbers.share(slowest[0].ms / profile.latency_ms, 0)}."
        )
    named = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{named} {'takes' if len(names) == 1 else 'take'} {share} of {whole}."


def left_to_win(profile: Profile) -> str:
    """An estimate: what the same layers would take at their roofs, and what int8 would add."""
    roofs_ms = sum(min(layer.roof_ms, layer.ms) for layer in profile.layers)
    told = (
        f"If every layer reached its roof on this machine, they would take "
        f"{numbers.milliseconds(roofs_ms)} instead of "
        f"{numbers.milliseconds(sum(layer.ms for layer in profile.layers))}"
    )
    peaks = profile.peaks.gflops
    floats = any(layer.precision == "float32" and layer.macs for layer in profile.layers)
    times = peaks.get("int8", 0) / peaks["float32"]
    if floats and times > 1.2:
        return f"{told}; in int8 its peak is {times:.1f}x as high."
    return f"{told}."


def difference(profile: Profile) -> str:
    """How the parts add up to the whole."""
    whole_ms = profile.latency_ms
    parts_ms = whole_ms - profile.rest_ms
    return (
        f"Operators add up to {numbers.milliseconds(parts_ms)}, {numbers.share(parts_ms / whole_ms, 0)} of "
        f"the {numbers.milliseconds(whole_ms)} that a whole call takes without the profile"
    )
