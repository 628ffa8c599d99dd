"""Profiles as a worker would keep them, with times that are easy to add up."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from db import analyses
from tests.support.experiments import LAPTOP
from workers.profiling.peaks import Peaks
from workers.profiling.profile import LayerTime, Profile

PEAKS = Peaks(gflops={"float32": 100.0, "int8": 400.0}, gbytes=((1 << 20, 100.0), (1 << 27, 20.0)))


def layer(name: str, ms: float, *, macs: float = 1e6, precision: str = "float32", **more: Any) -> LayerTime:
    """Its roof is half of its time."""
    given = {"kind": "Conv", "weighted": True, "spread_ms": 0.01, "moved_bytes": 1e4, "reached": 1.0} | more
    return LayerTime(name=name, ms=ms, macs=macs, precision=precision, roof_ms=ms / 2, **given)


def profile_of(layers: Sequence[LayerTime], latency_ms: float, added_ms: float = 0.1) -> Profile:
    added = layer("Reorder, quantize, other", added_ms, macs=0, precision="", weighted=False, kind="Cast ×1")
    return Profile(
        latency_ms=latency_ms, layers=tuple(layers), added=added, peaks=PEAKS, calls=500, marks=("contended",)
    )


BEFORE = profile_of(
    [layer("conv1", 1.0), layer("conv2", 2.0), layer("mean", 0.3, macs=0, weighted=False)], 3.5
)
AFTER = profile_of(
    [
        layer("conv1", 0.25, precision="int8"),
        layer("conv2.0", 0.5),
        layer("conv2.1", 0.75, macs=5e5),
        layer("pool", 0.3, macs=0, weighted=False),
    ],
    2.0,
)


def keep(
    session: Session, stage_id: str, file_sha256: str, profile: Profile, side_by_side: str = "s"
) -> None:
    document = {"session": side_by_side, "file_sha256": file_sha256, **profile.model_dump(mode="json")}
    key = f"{stage_id} {side_by_side}"
    analyses.save(session, "profile", key, stage_id=stage_id, target=LAPTOP, document=document)
