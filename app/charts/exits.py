"""A file with early exits as pictures: the way through it, its trade-offs, and who leaves where."""

from collections.abc import Sequence
from typing import Literal, cast

import altair as alt
import numpy as np
import pandas as pd

from app.charts.class_counts import MOST
from app.charts.theme import NEUTRAL, OKABE_ITO, colours, themed

HEIGHT = 300
LINE_PX = 96
ROW_PX = 24
#: Accuracies that are lower than the best by more are cut off; nobody chooses them.
WORTH_A_LOOK = 0.1


def exits_line(cuts: Sequence[str], path_ms: Sequence[float]) -> alt.LayerChart:
    """The blocks between exits, as long as they take, and the exits behind them.

    cuts: names of the nodes behind which the exits stand. path_ms: of the ways out, the end's last.
    """
    ends = np.maximum.accumulate(path_ms) / max(path_ms)
    starts = np.r_[0.0, ends[:-1]]
    blocks = pd.DataFrame({"start": starts, "end": ends, "middle": (starts + ends) / 2})
    blocks["share"] = [f"{share:.0%}".replace("%", "\u00a0%") for share in ends - starts]
    blocks["hover"] = [
        f"Block {n} takes {s} of the time to the end" for n, s in enumerate(blocks["share"], 1)
    ]
    exits = pd.DataFrame(
        {
            "end": ends[:-1],
            "title": [
                f"Exit {n}|after {cut}|{ms:.3f} ms"
                for n, (cut, ms) in enumerate(zip(cuts, path_ms, strict=False), 1)
            ],
        }
    )
    scale = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X("start:Q", scale=scale, axis=None)
    base = alt.Chart(blocks)
    bars = base.mark_bar(color=OKABE_ITO[0], opacity=0.85, stroke="white", strokeWidth=1, height=26).encode(
        x=x, x2="end:Q", y=alt.value(18), tooltip="hover:N"
    )
    shares = base.mark_text(color="white", fontSize=12).encode(
        x=alt.X("middle:Q", scale=scale, axis=None), y=alt.value(18), text="share:N"
    )
    marks = alt.Chart(exits)
    at = alt.X("end:Q", scale=scale, axis=None)
    ticks = marks.mark_rule(color=OKABE_ITO[3], strokeWidth=3).encode(x=at, y=alt.value(1), y2=alt.value(42))
    names = marks.mark_text(
        color=NEUTRAL, align="center", baseline="top", lineBreak="|", lineHeight=14, fontSize=11
    ).encode(x=at, y=alt.value(46), text="title:N")
    return themed(cast("alt.LayerChart", alt.layer(bars, shares, ticks, names)), LINE_PX)


def frontier_chart(frontier: pd.DataFrame, others: pd.DataFrame, here: tuple[float, float]) -> alt.LayerChart:
    """frontier: columns `ms`, `accuracy`, `hover`. others: `name`, `ms`, `accuracy` of what needs no
    thresholds. here: (ms, accuracy) of the current ones."""
    now = pd.DataFrame({"ms": [here[0]], "accuracy": [here[1]]})
    y, x = _accuracy(frontier, others, here[1]), _latency(frontier, others)
    line = alt.Chart(frontier[["ms", "accuracy"]]).mark_line(
        interpolate="step-after", color=OKABE_ITO[0], strokeWidth=1.5, opacity=0.7, clip=True
    )
    points = alt.Chart(frontier).mark_point(filled=True, size=36, color=OKABE_ITO[0], opacity=0.9, clip=True)
    static = alt.Chart(others)
    marks = static.mark_point(shape="diamond", filled=True, size=90, color=NEUTRAL, opacity=1, clip=True)
    ring = alt.Chart(now).mark_point(
        shape="circle", filled=False, size=220, strokeWidth=2.5, color=OKABE_ITO[3], opacity=1
    )
    # Below and beside the ring, where no thresholds of the frontier lie.
    side = _side(here[0], frontier, others)
    label = alt.Chart(now).mark_text(
        text="You are here", align=side, dx=14 if side == "left" else -14, dy=12, color=OKABE_ITO[3],
        fontWeight="bold", fontSize=12,
    )  # fmt: skip
    layers = [
        line.encode(x=x, y=y, order="ms:Q"),
        points.encode(x=x, y=y, tooltip=alt.Tooltip("hover:N")),
        marks.encode(x=x, y=y, tooltip=alt.Tooltip("hover:N")),
        *(names.encode(x=x, y=y, text="name:N") for names in _names(frontier, others)),
        ring.encode(x=x, y=y),
        label.encode(x=x, y=y),
    ]
    return themed(cast("alt.LayerChart", alt.layer(*layers)), HEIGHT)


def _names(frontier: pd.DataFrame, others: pd.DataFrame) -> list[alt.Chart]:
    """Above their marks; to the inside of those at an edge, where they would be cut off."""
    sides = others["ms"].map(lambda ms: _side(ms, frontier, others))
    return [
        alt.Chart(others[sides == side]).mark_text(
            align=side, dx=-6 if side == "left" else 6, dy=-11, color=NEUTRAL, fontSize=11, clip=True
        )
        for side in ("left", "right")
        if (sides == side).any()
    ]


def _side(ms: float, frontier: pd.DataFrame, others: pd.DataFrame) -> Literal["left", "right"]:
    """Where a text at this latency begins or ends."""
    known = pd.concat([frontier["ms"], others["ms"]])
    return "left" if ms <= (known.min() + known.max()) / 2 else "right"


def _latency(frontier: pd.DataFrame, others: pd.DataFrame) -> alt.X:
    known = pd.concat([frontier["ms"], others["ms"]])
    low, high = float(known.min()), float(known.max())
    pad = 0.12 * (high - low) or 0.1 * high
    scale = alt.Scale(domain=[max(0.0, low - pad), high + pad], nice=False)
    return alt.X("ms:Q", title="Mean latency (ms), from path times", scale=scale, axis=alt.Axis(tickCount=6))


def _accuracy(frontier: pd.DataFrame, others: pd.DataFrame, here: float) -> alt.Y:
    """From what is worth a look upwards."""
    high = max(float(frontier["accuracy"].max()), float(others["accuracy"].max()))
    lowest = min(float(frontier["accuracy"].min()), float(others["accuracy"].min()))
    low = max(lowest, min(high - WORTH_A_LOOK, here))
    pad = 0.09 * (high - low) or 0.01
    scale = alt.Scale(domain=[max(0.0, low - pad), min(1.0, high + 2 * pad)], nice=False, zero=False)
    return alt.Y(
        "accuracy:Q", title="Accuracy (validation)", scale=scale, axis=alt.Axis(format=".1%", tickCount=5)
    )


def leaving_by_class(counts: np.ndarray, classes: Sequence[str]) -> alt.Chart:
    """counts: (classes, exits + 1) samples that leave there. Of more than MOST classes those are shown of
    which most stay to the end."""
    ways = [f"Exit {number}" for number in range(1, counts.shape[1])] + ["End"]
    sizes = counts.sum(axis=1)
    staying = counts[:, -1] / np.maximum(sizes, 1)
    shown = np.sort(np.argsort(-staying, kind="stable")[:MOST])
    rows = [
        {"class": classes[row], "way": way, "place": place, "samples": int(counts[row, place]),
         "share": float(counts[row, place] / max(1, sizes[row]))}
        for row in shown
        for place, way in enumerate(ways)
    ]  # fmt: skip
    bars: alt.Chart = (
        alt.Chart(pd.DataFrame(rows))
        .mark_bar()
        .encode(
            x=alt.X(
                "share:Q", stack="zero", title="Share of the class", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            y=alt.Y(
                "class:N", title=None, sort=None,
                axis=alt.Axis(labelLimit=120, labelOverlap=False, labelFlush=False),
            ),
            color=alt.Color("way:N", scale=colours(ways), legend=alt.Legend()),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("class:N", title="Class"),
                alt.Tooltip("way:N", title="Leaves at"),
                alt.Tooltip("samples:Q", title="Samples", format=","),
                alt.Tooltip("share:Q", title="Share", format=".1%"),
            ],
        )
    )  # fmt: skip
    return themed(bars, max(HEIGHT, ROW_PX * len(shown)))
