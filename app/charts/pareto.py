"""Accuracy against latency: the points, their intervals, the front, the baseline and the goal."""

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from app.charts.theme import NEUTRAL, OKABE_ITO, colours, themed
from app.charts.variants import MAX_CROSSES, Goal, accuracy_floor, staircase, thinned

HEIGHT = 420
#: A wider range of latencies is drawn in powers of two.
WIDE = 8
AXES = {
    "ratio": "Latency relative to the baseline (p10; mean with exits)",
    "latency_ms": "Latency in ms (median; mean with exits)",
}
#: Names of the two selections: a click, and a click with shift.
CHOSEN, SECOND = "chosen", "second"


def pareto_chart(
    frame: pd.DataFrame, goal: Goal, *, x: str = "ratio", selected: Sequence[str] = ()
) -> alt.LayerChart:
    """Every layer carries `variant`: a click takes whatever mark is on top.

    frame: from `variants_frame` with the column `front`; x: "ratio" or "latency_ms"; selected: variants to
    ring, at most two. Stages that are not their run's last are faded.

    The goal's latency is a ratio; on the ms axis it stands at that share of the baseline's latency.
    """
    frame = frame.dropna(subset=[x, "accuracy"])
    front, ringed = frame["front"], frame["variant"].isin(selected)
    points = thinned(frame, front | ringed | frame["baseline"])
    base = alt.Chart(_columns(points)).encode(x=_x(frame, x, goal), y=_y(frame, goal))
    line = staircase(frame[front], x)
    crossed = frame["last"] if len(frame) <= MAX_CROSSES else frame.index.isin(line.index)
    layers = [
        *_goal_layers(frame, goal, x),
        *_crosses(frame[crossed | ringed], x),
        _points(base, frame),
        _front_line(line, x),
        _rings(frame[ringed], x),
        *_baseline(frame[frame["baseline"]], x),
    ]
    # A canvas: ten thousand marks as SVG take seconds.
    chart = alt.layer(*layers, usermeta={"embedOptions": {"renderer": "canvas"}})
    return themed(cast("alt.LayerChart", chart), HEIGHT)


def _columns(frame: pd.DataFrame) -> pd.DataFrame:
    """What the browser needs, as few columns as can be: ten thousand rows are sent.

    The text under the pointer is made here: Streamlit has Vega interpret its expressions, and a tooltip of
    five fields costs a second at ten thousand points.
    """
    columns = (frame[name].tolist() for name in "label accuracy ratio latency_ms size_bytes".split())
    hover = [
        f"{label} · {100 * accuracy:.2f} % · {ratio:.3f}x · {ms:.3f} ms · {size / 2**20:.2f} MiB"
        for label, accuracy, ratio, ms, size in zip(*columns, strict=True)
    ]
    return frame["variant family runtime last accuracy ratio latency_ms".split()].assign(hover=hover)


def _x(frame: pd.DataFrame, x: str, goal: Goal) -> alt.X:
    low, high = frame[x].min(), frame[x].max()
    goal_x = _goal_x(frame, goal, x)
    low, high = min(low, goal_x), max(high, goal_x)
    wide = high / low > WIDE
    domain = (
        [low / 1.15, high * 1.15]
        if wide
        else [max(0.0, low - 0.08 * (high - low)), high + 0.08 * (high - low)]
    )
    scale = (
        alt.Scale(type="log", base=2, domain=domain, nice=False)
        if wide
        else alt.Scale(domain=domain, nice=False)
    )
    ratio = x == "ratio"
    axis = alt.Axis(format="~g", tickCount=8, labelExpr="datum.label + 'x'" if ratio else "datum.label")
    return alt.X(f"{x}:Q", title=AXES[x], scale=scale, axis=axis)


def _y(frame: pd.DataFrame, goal: Goal) -> alt.Y:
    """From the front down to all but the worst hundredth, which is cut off at the lower edge."""
    floor = accuracy_floor(frame, goal)
    lows = [frame["accuracy"].quantile(0.01), frame.loc[frame["front"], "accuracy"].min(), floor]
    highs = [frame["accuracy"].max()]
    if len(frame) <= MAX_CROSSES:
        lows.append(frame.loc[frame["last"], "accuracy_low"].min())
        highs.append(frame.loc[frame["last"], "accuracy_high"].max())
    low, high = float(np.nanmin(lows)), float(np.nanmax(highs))
    pad = 0.04 * (high - low) or 0.01
    scale = alt.Scale(domain=[max(0.0, low - pad), min(1.0, high + pad)], nice=False, zero=False)
    return alt.Y("accuracy:Q", title="Accuracy (validation)", scale=scale, axis=alt.Axis(format=".1%"))


def _goal_x(frame: pd.DataFrame, goal: Goal, x: str) -> float:
    if x == "ratio":
        return goal.max_latency_ratio
    baseline = frame.loc[frame["baseline"], x]
    return float(baseline.iloc[0]) * goal.max_latency_ratio if len(baseline) else float(frame[x].max())


def _goal_layers(frame: pd.DataFrame, goal: Goal, x: str) -> list[alt.Chart]:
    """The region that meets the goal, and its two edges."""
    floor = accuracy_floor(frame, goal)
    if floor != floor:
        return []
    edges = alt.Chart(pd.DataFrame([{x: _goal_x(frame, goal, x), "accuracy": floor}]))
    line: dict[str, Any] = {"strokeDash": [4, 4], "color": OKABE_ITO[2], "opacity": 0.7}
    left, top = alt.value(0), alt.value(0)
    region = edges.mark_rect(color=OKABE_ITO[2], opacity=0.08).encode(
        x=alt.X(f"{x}:Q"), x2=left, y=alt.Y("accuracy:Q"), y2=top
    )
    upright = edges.mark_rule(**line).encode(x=f"{x}:Q", y=alt.Y("accuracy:Q"), y2=top)
    level = edges.mark_rule(**line).encode(x=f"{x}:Q", x2=left, y="accuracy:Q")
    return [region, upright, level]


def _front_line(front: pd.DataFrame, x: str) -> alt.Chart:
    line = alt.Chart(front[["variant", x, "accuracy"]]).mark_line(
        interpolate="step-after", color=NEUTRAL, strokeWidth=1.5, opacity=0.8
    )
    encoded: alt.Chart = line.encode(x=f"{x}:Q", y="accuracy:Q", order=alt.Order(f"{x}:Q"))
    return encoded


def _crosses(frame: pd.DataFrame, x: str) -> list[alt.Chart]:
    """95 % intervals in both directions."""
    stem = x.removesuffix("_ms")
    low, high = f"{stem}_low", f"{stem}_high"
    chart = alt.Chart(frame[["variant", x, "accuracy", low, high, "accuracy_low", "accuracy_high"]])
    thin: dict[str, Any] = {"color": NEUTRAL, "strokeWidth": 1, "opacity": 0.5, "aria": False}
    return [
        chart.mark_rule(**thin).encode(x=f"{low}:Q", x2=f"{high}:Q", y="accuracy:Q"),
        chart.mark_rule(**thin, clip=True).encode(x=f"{x}:Q", y="accuracy_low:Q", y2="accuracy_high:Q"),
    ]


def _points(base: alt.Chart, frame: pd.DataFrame) -> alt.Chart:
    many = len(frame) > MAX_CROSSES
    families = sorted(set(frame["family"]) - {"Baseline"})
    runtimes = sorted(frame["runtime"].unique())
    chosen, second = (
        alt.selection_point(name=name, fields=["variant"], on=f"click[{test}]", toggle=False)
        for name, test in ((CHOSEN, "!event.shiftKey"), (SECOND, "event.shiftKey"))
    )
    legend = alt.Legend(columns=2) if len(families) > 1 else None  # the side panel leaves half the width
    size, opacity = (30, 0.5) if many else (90, 1.0)
    points = base.mark_point(filled=True, size=size, clip=True, aria=False)
    marks: alt.Chart = points.encode(
        opacity=alt.value(opacity) if frame["last"].all() else _faded(opacity),
        color=alt.Color("family:N", scale=colours(families), legend=legend),
        tooltip="hover:N",
    )  # fmt: skip
    if len(runtimes) > 1:  # what tells nothing apart costs a tenth of the time at ten thousand points
        marks = marks.encode(
            shape=alt.Shape("runtime:N", scale=alt.Scale(domain=runtimes), legend=alt.Legend())
        )
    return marks.add_params(chosen, second)


def _faded(opacity: float) -> Any:
    return alt.condition("datum.last", alt.value(opacity), alt.value(0.3 * opacity))


def _rings(frame: pd.DataFrame, x: str) -> alt.Chart:
    rings = alt.Chart(frame[["variant", x, "accuracy"]]).mark_point(
        shape="circle", filled=False, size=260, strokeWidth=2, color=OKABE_ITO[3], opacity=1
    )
    encoded: alt.Chart = rings.encode(x=f"{x}:Q", y="accuracy:Q")
    return encoded


def _baseline(frame: pd.DataFrame, x: str) -> list[alt.Chart]:
    chart = alt.Chart(frame[["variant", x, "accuracy"]]).encode(x=f"{x}:Q", y="accuracy:Q")
    mark = chart.mark_point(shape="diamond", filled=True, size=140, color=NEUTRAL, opacity=1, tooltip=None)
    text = chart.mark_text(align="right", dx=-10, dy=-10, color=NEUTRAL, text="Baseline")
    return [mark, text]
