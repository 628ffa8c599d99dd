"""A throughput grid as a heat map: batch sizes across, threads and streams down."""

from typing import cast

import altair as alt
import pandas as pd

from app import numbers
from app.charts.theme import NEUTRAL, OKABE_ITO, themed
from workers.throughput.grid import Cell, Grid

ROW_PX, FRAME_PX = 44, 70
#: From little to much; the text on it turns white where that contrasts more.
PALE, DARK = "#D6E6F2", OKABE_ITO[0]
WHITE_FROM = 0.8


def throughput_map(grid: Grid, limit_ms: float | None, best: Cell | None) -> alt.LayerChart:
    """Cells beyond the limit are faint, the best one has a frame, and what was not measured has no colour."""
    frame = pd.DataFrame([_row(cell, limit_ms) for cell in grid.cells])
    most = frame["rate"].max()
    frame["white"] = frame["rate"] > WHITE_FROM * most
    base = alt.Chart(frame).encode(
        x=alt.X(
            "batch:O", title="Batch",
            axis=alt.Axis(labelAngle=0, labelFlush=False, orient="top", ticks=False, domain=False),
        ),
        y=alt.Y(
            "parallel:N", title=None, sort=list(dict.fromkeys(frame["parallel"])),
            axis=alt.Axis(labelLimit=180, labelFlush=False, ticks=False, domain=False),
        ),
        tooltip=alt.Tooltip("hover:N"),
    )  # fmt: skip
    there = base.transform_filter("datum.rate > 0")
    faint = alt.condition("datum.within", alt.value(1.0), alt.value(0.3))
    cells = there.mark_rect(cornerRadius=3, stroke="transparent", strokeWidth=2).encode(
        color=alt.Color("rate:Q", scale=alt.Scale(domain=[0, most], range=[PALE, DARK]), legend=None),
        opacity=faint,
    )
    empty = base.transform_filter("datum.rate == 0").mark_text(color=NEUTRAL, fontSize=11)
    text = there.transform_filter("datum.within").mark_text(fontSize=13).encode(
        text="text:N", color=alt.condition("datum.white", alt.value("white"), alt.value("#1b2733"))
    )  # fmt: skip
    beyond = (
        there.transform_filter("!datum.within").mark_text(fontSize=13, color=NEUTRAL).encode(text="text:N")
    )
    layers: list[alt.Chart] = [cells, empty.encode(text=alt.value("not measured")), text, beyond]
    if best is not None:
        layers.append(
            base.transform_filter(
                (alt.datum.parallel == best.way.parallel) & (alt.datum.batch == best.way.batch)
            ).mark_rect(filled=False, stroke=OKABE_ITO[3], strokeWidth=3, cornerRadius=3)
        )
    height = ROW_PX * frame["parallel"].nunique() + FRAME_PX
    return themed(cast("alt.LayerChart", alt.layer(*layers)), height)


def _row(cell: Cell, limit_ms: float | None) -> dict[str, object]:
    name, tail_ms = cell.tail
    told = (
        f"{rate(cell.samples_per_s)} samples/s · p50 {numbers.milliseconds(cell.p50_ms)} · "
        f"{name} {numbers.milliseconds(tail_ms)} · {cell.calls:,} calls"
    )
    return {
        "parallel": cell.way.parallel,
        "batch": cell.way.batch,
        "rate": cell.samples_per_s,
        "text": rate(cell.samples_per_s),
        "within": limit_ms is None or tail_ms <= limit_ms,
        "hover": f"{cell.way}: {told if cell.calls else 'not measured'}",
    }


def rate(samples_per_s: float) -> str:
    """Three digits at least: 4.27, 63.5, 3,120."""
    digits = 0 if samples_per_s >= 100 else 1 if samples_per_s >= 10 else 2
    return f"{samples_per_s:,.{digits}f}"
