"""The charts of a run: curves while it trains, and what each stage did to the three numbers."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.charts.curves import AXES, curve
from app.charts.waterfall import waterfall
from db.models import Point, Stage

#: Name, split, title, factor, format, direction.
NUMBERS = (
    ("accuracy", "validation", "Accuracy (validation)", 1, ".1%", "higher"),
    ("latency_p50", "validation", "Latency p50 (ms)", 1, ".2f", "lower"),
    ("size", None, "Size (MiB)", 2**-20, ".2f", "lower"),
)


def draw_curves(points: Sequence[Point], titles: Sequence[str]) -> None:
    frame = pd.DataFrame([{**p.values, "epoch": p.epoch, "stage": _title(titles, p.stage)} for p in points])
    names = [name for name in AXES if name in frame]
    if not names:
        with st.container(border=True, height=220, vertical_alignment="center"):
            st.caption("Loss and accuracy appear here, one point per epoch, while a step trains.")
    for name in names:
        st.altair_chart(curve(frame, name), alt=f"{AXES[name][0]} by epoch")


def _title(titles: Sequence[str], stage: int) -> str:
    return titles[stage] if stage < len(titles) else f"Stage {stage}"


def draw_waterfalls(stages: Sequence[Stage], titles: Sequence[str]) -> None:
    """Nothing before two stages are measured: there is no change to show."""
    if len(stages) < 2:
        return
    st.subheader("What each stage did")
    for column, (name, split, title, factor, form, better) in zip(st.columns(3), NUMBERS, strict=True):
        frame = pd.DataFrame(
            [
                {"stage": titles[stage.index], "value": value * factor}
                for stage in stages
                if (value := _value(stage, name, split)) is not None
            ]
        )
        if len(frame) > 1:
            chart = waterfall(frame, title=title, form=form, better=better)
            column.altair_chart(chart, alt=f"{title} after each stage")


def _value(stage: Stage, name: str, split: str | None) -> float | None:
    """Of the first target that was measured."""
    found = (m for variant in stage.variants for m in variant.measurements)
    return next((m.value for m in found if m.name == name and m.split == split), None)
