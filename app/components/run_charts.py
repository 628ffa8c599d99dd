"""The charts of a run: curves while it trains, and what each stage did to the three numbers."""

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import pandas as pd
import streamlit as st

import app.session
from app.charts.curves import AXES, curve
from app.charts.waterfall import waterfall
from app.components.linked import linked_choice
from app.components.live import rerun_on_change
from app.components.plain import plain
from app.numbers import NARROW, change, faster, milliseconds, points, share, target_name
from app.numbers import size as in_bytes
from db import jobs
from db.models import ENDED, Job, Measurement, Point, Stage

#: The first of these names that a stage has, title, factor, format, direction. With exits the mean is what
#: compares: the median may be the time of an early sample.
NUMBERS = (
    (("accuracy",), "Accuracy (validation)", 1, ".1%", "higher"),
    (("latency_mean", "latency_p50"), "Latency (ms)", 1, ".3~r", "lower"),
    (("size",), "Size (MiB)", 2**-20, ".2f", "lower"),
)
CHART_PX = 305
#: How the change of each of them is told.
HOW: tuple[Callable[[float, float], str], ...] = (
    lambda before, now: points(now - before),
    lambda before, now: faster(now / before),
    change,
)


#: A chart of epochs is drawn again no more often.
REDRAWN_S = 5.0
#: More would not be told apart on the screen.
MOST_POINTS = 400


@st.fragment
def live_curves(run_id: str, titles: Sequence[str]) -> None:
    """Drawn again by themselves while points come in; the page must poll the state of the run."""
    with app.session.reading() as session:
        job = jobs.latest(session, [run_id]).get(run_id)
        count = 0 if job is None else jobs.count_points(session, job.id)
    rerun_on_change("points", count, key="live-points", seconds=REDRAWN_S)
    charts = {} if job is None else _curves(job.id, job.attempt, _shared(count, job), tuple(titles))
    if not charts:
        with st.container(border=True, height=220, vertical_alignment="center"):
            st.caption("Loss and accuracy appear here, one point per epoch, while a step trains.")
    for name, chart in charts.items():
        st.vega_lite_chart(dict(chart), alt=f"{AXES[name][0]} by epoch")


def _shared(count: int, job: Job) -> int:
    """Two digits of it, while points come in: who watches a long curve may get what another was drawn."""
    last = 10 ** max(len(str(count)) - 2, 0)
    return count if job.state in ENDED else count // last * last


@st.cache_resource(max_entries=64, show_spinner=False)
def _curves(job_id: str, attempt: int, count: int, titles: tuple[str, ...]) -> dict[str, dict[str, Any]]:  # noqa: ARG001
    """Vega-Lite, made once for all who watch; by the name of what is drawn."""
    with app.session.reading() as session:
        epochs = jobs.points(session, job_id)
    by_stage = groupby(epochs, key=lambda point: point.stage)
    kept = [point for _, found in by_stage for point in thinned(list(found))]
    frame = pd.DataFrame([{**p.values, "epoch": p.epoch, "stage": _title(titles, p.stage)} for p in kept])
    return {name: curve(frame, name).to_dict() for name in AXES if name in frame}


def thinned(points: Sequence[Point]) -> list[Point]:
    """Evenly, and the last one."""
    return [*points[: -1 : -(-len(points) // MOST_POINTS)], points[-1]]


def _title(titles: Sequence[str], stage: int) -> str:
    return titles[stage] if stage < len(titles) else f"Stage {stage}"


def draw_waterfalls(stages: Sequence[Stage], titles: Sequence[str]) -> None:
    """Nothing before two stages are measured: there is no change to show."""
    if len(stages) < 2:
        return
    st.subheader("What each stage did")
    target = _chosen_target(stages)
    row = st.container(horizontal=True)  # breaks where the window is narrow
    for names, title, factor, form, better in NUMBERS:
        frame = pd.DataFrame(
            [
                {
                    "stage": f"{titles[stage.index]}|{_duration(stage)}".rstrip("|"),
                    "value": measured.value * factor,
                }
                for stage in stages
                if (measured := _measured(stage, names, target)) and measured.value is not None
            ]
        )
        if len(frame) > 1:
            chart = waterfall(frame, title=title, form=form, better=better)
            row.altair_chart(chart, width=CHART_PX, alt=f"{title} after each stage")
    st.table(changes(stages, titles, target), border="horizontal")
    for stage in stages:
        for why in _refusals(stage, target):
            st.caption(f"{titles[stage.index]} has no numbers on this target. {plain(why)}")


def _refusals(stage: Stage, target: dict[str, Any] | None) -> list[str]:
    """Why a runtime has no numbers of a stage."""
    found = stage.own.measurements
    return list(
        dict.fromkeys(why for m in found if m.target == target and m.value is None for why in m.marks)
    )


def _chosen_target(stages: Sequence[Stage]) -> dict[str, Any] | None:
    """None before latencies are taken. Two targets are never drawn as one."""
    found = dict.fromkeys(
        json.dumps(m.target)
        for s in stages
        for m in s.own.measurements
        if m.target and m.name.startswith("latency")
    )
    names = {target: target_name(target) for target in found}
    if len(names) > 1:
        return dict(json.loads(linked_choice(st.container(), "Target", names, key="target")))
    for target, name in names.items():
        st.caption(f"Latency (p50, with exits the mean) on {name}")
        return dict(json.loads(target))
    return None


def changes(stages: Sequence[Stage], titles: Sequence[str], target: dict[str, Any] | None) -> pd.DataFrame:
    """What every stage took, and what it gave or cost against the one before; one row each."""
    rows: list[list[str]] = []
    before: list[float | None] = [None] * len(NUMBERS)
    for stage in stages:
        accuracy, latency, size = (_measured(stage, names, target) for names, *_ in NUMBERS)
        now = [None if m is None else m.value for m in (accuracy, latency, size)]
        told = [share(now[0]), milliseconds(now[1], *_interval(latency)), in_bytes(now[2])]
        how = [_told(*three) for three in zip(HOW, before, now, strict=True)]
        cells = [" ".join(pair).strip() for pair in zip(told, how, strict=True)]
        rows.append([titles[stage.index], _duration(stage) or "–", *cells])
        before = now
    names = ["Stage", "Took", "Accuracy (validation)", "Latency", "Size"]
    return pd.DataFrame(rows, columns=names).set_index("Stage")


def _told(how: Callable[[float, float], str], before: float | None, now: float | None) -> str:
    return f"({how(before, now)})" if before and now is not None else ""


def _interval(measured: Measurement | None) -> tuple[float | None, float | None]:
    return (None, None) if measured is None else (measured.low, measured.high)


def _duration(stage: Stage) -> str:
    """Of the step itself, when it was really carried out; the baseline has none."""
    return f"{stage.seconds:.1f}{NARROW}s" if stage.index else ""


def _measured(stage: Stage, names: Sequence[str], target: dict[str, Any] | None) -> Measurement | None:
    """Latencies of this target alone; accuracy on the split that choices are made by."""
    found = {
        m.name: m
        for m in reversed(stage.own.measurements)
        if m.split in (None, "validation")
        and (m.target in (None, target) or (target is None and m.name == "accuracy"))
    }
    return next((found[name] for name in names if name in found), None)
