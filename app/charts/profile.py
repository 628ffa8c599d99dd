"""Where the time goes as pictures: a bar per layer, and layers under the roofs of the machine."""

import math
from typing import Any, Literal, cast

import altair as alt
import numpy as np
import pandas as pd

from app.charts.theme import NEUTRAL, OKABE_ITO, themed
from app.profiles import bytes_speed, speed
from workers.profiling.peaks import Peaks

Colour = Literal["Time", "Precision", "MACs"]
ROW_PX = 22
#: Axis and legend below the bars.
AROUND_PX = 130
ROOFLINE_PX = 400
PRECISIONS = ["float32", "int8", "float16", "bfloat16", "other"]
UNKNOWN = "other"


def layer_bars(
    frame: pd.DataFrame, colour: Colour, *, longest_ms: float, most_macs: float, named: bool = True
) -> alt.Chart:
    """frame: columns `name`, `ms`, `precision`, `macs`, `hover`, in the order of the rows.

    longest_ms, most_macs: where axis and colours end, so that two pictures compare. named: with the names of
    the rows.
    """
    shown = frame.assign(
        precision=frame["precision"].where(frame["precision"].isin(PRECISIONS), UNKNOWN),
        macs=frame["macs"].fillna(0) / 1e6,
        drawn=frame["ms"].clip(lower=0),
    )
    labels = alt.Axis(labelLimit=220, labelOverlap=False, labelFlush=False) if named else None
    bars: alt.Chart = (
        alt.Chart(shown)
        .mark_bar(height={"band": 0.8})
        .encode(
            x=alt.X(
                "drawn:Q",
                title="Time (ms)",
                scale=alt.Scale(domain=[0, longest_ms], nice=False),
                axis=alt.Axis(tickCount=5, labelFlush=False),
            ),
            y=alt.Y("name:N", title=None, sort=None, axis=labels),
            color=_colour(shown, colour, longest_ms, most_macs / 1e6),
            tooltip=alt.Tooltip("hover:N"),
        )
    )
    return themed(bars, ROW_PX * len(shown) + AROUND_PX)


def _colour(shown: pd.DataFrame, colour: Colour, longest_ms: float, most_macs: float) -> alt.Color:
    if colour == "Precision":
        there = [name for name in PRECISIONS if name in set(shown["precision"])]
        return alt.Color("precision:N", scale=_precisions(there), legend=alt.Legend(symbolType="square"))
    # From grey, which is seen on light and dark, to the accent.
    grey_to_accent = ["#B8C4CC", OKABE_ITO[0]]
    if colour == "Time":  # told by the axis
        return alt.Color(
            "drawn:Q", scale=alt.Scale(range=grey_to_accent, domain=[0, longest_ms]), legend=None
        )
    legend = alt.Legend(title="MACs (millions)", gradientLength=160, tickCount=3)
    return alt.Color("macs:Q", scale=alt.Scale(range=grey_to_accent, domain=[0, most_macs]), legend=legend)


def _precisions(names: list[str]) -> alt.Scale:
    """The same colour for the same precision, whichever are there."""
    known = dict(zip(PRECISIONS, [*OKABE_ITO[:4], NEUTRAL], strict=True))
    return alt.Scale(domain=names, range=[known[name] for name in names])


def roofline(frame: pd.DataFrame, peaks: Peaks) -> alt.LayerChart:
    """frame: columns `intensity`, `gflops`, `ms`, `precision`, `file`, `hover`. Both axes are logarithmic.

    Below a line that rises, moving bytes takes the time; below a level one, arithmetic does.
    """
    low, high = float(frame["intensity"].min()) / 2, float(frame["intensity"].max()) * 2
    lines = _roofs(peaks, low, high)
    bottom = float(frame["gflops"].min()) / 2
    top = max(float(lines["gflops"].max()), float(frame["gflops"].max())) * 1.3
    x = alt.X("intensity:Q", title="Operations per byte moved", **_logarithmic(low, high))
    y = alt.Y("gflops:Q", title="GFLOP/s (int8: GOP/s)", **_logarithmic(bottom, top))
    there = [name for name in PRECISIONS if name in {*frame["precision"], *PRECISIONS[:2]}]
    colour = alt.Color("precision:N", scale=_precisions(there), legend=alt.Legend())
    roofs = (
        alt.Chart(lines)
        .mark_line(strokeWidth=1.5, clip=True)
        .encode(
            x=x, y=y, detail="roof:N",
            color=colour,
            strokeDash=alt.StrokeDash(
                "where:N", scale=alt.Scale(domain=["From caches", "From memory"], range=[[1, 0], [5, 4]]),
                legend=alt.Legend(symbolType="stroke", symbolSize=200, symbolStrokeWidth=1.5),
            ),
            tooltip=alt.Tooltip("roof:N"),
        )
    )  # fmt: skip
    shapes = list(dict.fromkeys(frame["file"]))
    points = (
        alt.Chart(frame)
        .mark_point(filled=True, opacity=0.75, clip=True)
        .encode(
            x=x, y=y,
            size=alt.Size("ms:Q", scale=alt.Scale(range=[25, 500]), legend=None),
            color=colour,
            shape=alt.Shape(
                "file:N", scale=alt.Scale(domain=shapes, range=["circle", "triangle-up"][: len(shapes)]),
                legend=alt.Legend(symbolFillColor=NEUTRAL, symbolStrokeWidth=0) if len(shapes) > 1 else None,
            ),
            tooltip=alt.Tooltip("hover:N"),
        )
    )  # fmt: skip
    return themed(cast("alt.LayerChart", alt.layer(roofs, points)), ROOFLINE_PX)


def _logarithmic(low: float, high: float) -> dict[str, Any]:
    """Scale and axis, with a line per power of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [value for value in (10.0**power for power in powers) if low <= value <= high]
    return {
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
        "axis": alt.Axis(values=values, format="~g"),
    }


def _roofs(peaks: Peaks, low: float, high: float) -> pd.DataFrame:
    """Lines of float32 and int8, with the bytes from memory and from the fastest cache."""
    rows: list[dict[str, Any]] = []
    speeds = (("From caches", max(moved for _, moved in peaks.gbytes)), ("From memory", peaks.gbytes[-1][1]))
    for precision, peak in peaks.gflops.items():
        for where, moved in speeds:
            told = f"{precision}: {speed(peak, precision)}, {where.lower()} {bytes_speed(moved)}"
            for intensity in sorted({low, high, *np.clip([peak / moved], low, high).tolist()}):
                rows.append(
                    {
                        "precision": precision,
                        "where": where,
                        "roof": told,
                        "intensity": intensity,
                        "gflops": min(peak, intensity * moved),
                    }
                )
    return pd.DataFrame(rows)
