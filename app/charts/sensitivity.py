"""Layers down, what was done to one of them alone across; the colour is what that costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import altair as alt
import pandas as pd

from app import numbers
from app.charts.theme import BETTER, NEUTRAL, OKABE_ITO, WORSE, themed
from workers.sensitivity.table import INT8, SHARES, Cell, Row, Table, pruned_by

ROW_PX, FRAME_PX = 24, 60
#: Name of the selection: `layer` and `change` of the cell that was clicked.
CELL = "cell"
CHANGES = (*(pruned_by(share) for share in SHARES), INT8)


@dataclass(frozen=True)
class View:
    """One number of the cells. value: of a cell, given the table; None where it was not taken.

    least: the full colour is at least so far from `nothing`, the value at which nothing changed: what one
    sample or a busy moment does stays pale.
    """

    title: str
    value: Callable[[Table, Cell], float | None]
    text: Callable[[float], str]
    least: float
    nothing: float = 0.0


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−") if round(points, 1) else "0.0"


def _small(divergence: float) -> str:
    return f"{divergence:.2g}" if divergence >= 0.001 or divergence <= 0 else "<0.001"


VIEWS: Mapping[str, View] = {
    "accuracy": View(
        "Points of accuracy",
        lambda table, cell: 100 * (cell.accuracy - table.accuracy),
        _signed,
        least=2.0,
    ),
    "kl": View(
        "KL divergence of the answers",
        lambda _, cell: cell.divergence,
        _small,
        least=0.01,
    ),
    "time": View(
        "Time, as a multiple of the whole model's",
        lambda _, cell: cell.ratio,
        lambda value: f"{value:.2f}",
        least=0.1,
        nothing=1.0,
    ),
}


def sensitivity_map(table: Table, view: str) -> alt.LayerChart:
    """A click on a cell selects it; a layer that goes with another one has no cells of its own to prune."""
    shown = VIEWS[view]
    entries = [_entry(table, row, cell, shown) for row in table.rows for cell in row.cells]
    frame = pd.DataFrame(entries, columns=["layer", "change", "value", "text", "hover"])
    most = (frame["value"] - shown.nothing).abs().clip(lower=shown.least).max()
    scale = _scale(view, shown.least if pd.isna(most) else float(most))
    base = _grid(frame, [row.layer for row in table.rows])
    picked = alt.selection_point(name=CELL, fields=["layer", "change"], on="click", toggle=False)
    cells = (
        base.mark_rect(cornerRadius=2, cursor="pointer", stroke="transparent", strokeWidth=1)
        .encode(
            color=alt.condition(
                "isValid(datum.value)",
                alt.Color("value:Q", scale=scale, legend=None),
                alt.value("transparent"),
            )
        )
        .add_params(picked)
    )
    text = base.mark_text(fontSize=11).encode(
        text="text:N",
        # Dark contrasts more than white with every colour of the scales.
        color=alt.condition("isValid(datum.value)", alt.value("#1b2733"), alt.value(NEUTRAL)),
    )
    chart = cast("alt.LayerChart", alt.layer(cells, text))
    return themed(chart, ROW_PX * len(table.rows) + FRAME_PX)


def _scale(view: str, most: float) -> alt.Scale:
    """Of the colours. most: how far a value is from where nothing changed."""
    return {
        "accuracy": alt.Scale(domain=[-most, 0, most], range=[OKABE_ITO[3], "#F6E7DC", BETTER]),
        "kl": alt.Scale(type="sqrt", domain=[0, most], range=["#F6E7DC", OKABE_ITO[3]]),
        "time": alt.Scale(domain=[1 - most, 1, 1 + most], range=[BETTER, "#EEEEEE", WORSE]),
    }[view]


def _grid(frame: pd.DataFrame, layers: list[str]) -> alt.Chart:
    """Changes across, layers down in the order of the network."""
    chart: alt.Chart = alt.Chart(frame).encode(
        x=alt.X(
            "change:N", title=None, sort=list(CHANGES), scale=alt.Scale(domain=list(CHANGES)),
            axis=alt.Axis(
                labelAngle=0, labelFlush=False, labelFontSize=12, orient="top", ticks=False, domain=False
            ),
        ),
        y=alt.Y(
            "layer:N", title=None, sort=layers, scale=alt.Scale(domain=layers),
            axis=alt.Axis(labelLimit=220, labelOverlap=False, labelFlush=False, ticks=False, domain=False),
        ),
        tooltip=alt.Tooltip("hover:N"),
    )  # fmt: skip
    return chart


def _entry(table: Table, row: Row, cell: Cell, shown: View) -> dict[str, object]:
    value = None if cell.why else shown.value(table, cell)
    with_it = f", with {', '.join(row.coupled)}" if row.coupled and cell.share is not None else ""
    done = "in int8" if cell.share is None else f"{cell.change} pruned{with_it}"
    told = cell.why or " · ".join(
        [
            f"accuracy {numbers.share(cell.accuracy)} ({numbers.points(cell.accuracy - table.accuracy)})",
            f"KL {_small(cell.divergence)}",
            "not timed" if cell.ratio is None else f"time {numbers.faster(cell.ratio)}",
        ]
    )
    return {
        "layer": row.layer,
        "change": cell.change,
        "value": value,
        "text": "–" if value is None else shown.text(value),
        "hover": f"{row.layer} {done}: {told}",
    }
