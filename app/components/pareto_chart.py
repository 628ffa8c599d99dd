"""The trade-off chart, whose clicks choose up to two points; the choice lives in the URL."""

from typing import Any

import pandas as pd
import streamlit as st

from app.charts.pareto import CHOSEN, SECOND, pareto_chart
from app.charts.variants import MAX_POINTS, Goal
from app.components.linked import remember

#: Names in the URL.
PARAMETERS = {CHOSEN: "variant", SECOND: "second"}


def selection() -> tuple[str | None, str | None]:
    """The chosen variant and the one to compare it with."""
    return st.query_params.get("variant"), st.query_params.get("second")


def select(chosen: str | None, second: str | None = None) -> None:
    """Choose from outside the chart: its own selections are forgotten, since they would be out of date."""
    st.session_state["chart_round"] = st.session_state.get("chart_round", 0) + 1
    remember({"variant": chosen, "second": second if chosen and second != chosen else None})


def draw_pareto(frame: pd.DataFrame, goal: Goal, *, x: str) -> None:
    """Draw the chart; a click chooses the point, a click with shift the second one."""
    chart = pareto_chart(frame, goal, x=x, selected=[name for name in selection() if name])
    if len(frame) > MAX_POINTS:
        st.caption(
            f"{MAX_POINTS:,} of {len(frame):,} points are drawn, with the whole front; the table has all."
        )
    key = f"pareto-{st.session_state.get('chart_round', 0)}"
    st.altair_chart(
        chart,
        key=key,
        on_select=lambda: _take(st.session_state[key]["selection"]),
        selection_mode=[CHOSEN, SECOND],
        alt="Accuracy against latency of every variant; the table below holds the same numbers.",
    )


def _take(picked: dict[str, Any]) -> None:
    """What the chart says now; a click beside all points clears the choice."""
    chosen, second = (picked.get(name) or [] for name in (CHOSEN, SECOND))
    first = chosen[0].get("variant") if chosen else None
    other = second[0].get("variant") if second else None
    if first is None and other is not None:
        first = st.query_params.get("variant") or other
    remember({"variant": first, "second": other if other != first else None})
