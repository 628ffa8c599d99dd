"""What would it cost to be faster? Every variant of an experiment on one target."""

import json

import pandas as pd
import streamlit as st

import app.session
from app import numbers
from app.charts.variants import Goal, best_within, on_front, variants_frame, within_goal
from app.components.live import live
from app.components.pareto_chart import draw_pareto, select, selection
from app.components.variant_panel import variant_details
from app.components.variants_table import variants_table
from db import runs, variants
from workers.catalog import METHODS

FAMILIES = {name: method.family for name, method in METHODS.items()}
DROP, RATIO = 1.0, 0.6


def main() -> None:
    live("/api/state/runs", key="live", seconds=2)
    st.title("Trade-offs")
    with app.session.reading() as session:
        experiments = runs.experiments(session)
        if not experiments:
            return _empty()
        filters = st.columns([4, 7, 3], vertical_alignment="bottom")
        names = {e.id: f"{e.model.name} on {e.dataset.name}" for e in experiments}
        experiment = filters[0].selectbox(
            "Experiment", list(names), format_func=names.__getitem__, key="experiment", bind="query-params"
        )
        newest = variants.newest_measurement(session)
        stored = next(e.goal for e in experiments if e.id == experiment)
    frames = _frames(experiment, newest)
    if not frames:
        return _empty()
    targets = list(frames)
    target = filters[1].selectbox(
        "Target", targets, format_func=numbers.target_name, key="target", bind="query-params"
    )
    axis = filters[2].segmented_control(
        "Latency", ["ratio", "ms"], default="ratio", key="x", bind="query-params", required=True
    )
    goal, feasible_only = _goal(stored)
    _draw(frames[target], goal, feasible_only, "latency_ms" if axis == "ms" else "ratio", target)
    return None


@st.cache_data(max_entries=8, show_spinner=False)
def _frames(experiment: str, newest: int) -> dict[str, pd.DataFrame]:  # noqa: ARG001 - part of the key
    """One frame per target. newest: id of the newest measurement; with another one all is read again."""
    with app.session.reading() as session:
        rows = variants.comparison(session, experiment)
        methods = variants.methods(session, experiment)
    targets = dict.fromkeys(row["target"] for row in rows)
    return {
        target: variants_frame([row for row in rows if row["target"] == target], methods, FAMILIES)
        for target in targets
    }


def _empty() -> None:
    st.info("No measured variant yet. Queue a run; its points appear here when it ends.")
    st.page_link("views/new_run.py", label="New run", icon=":material/add:")


def _goal(stored: dict[str, float]) -> tuple[Goal, bool]:
    """The sliders start at the experiment's goal."""
    left, middle, right = st.columns([3, 3, 2], vertical_alignment="bottom")
    drop = left.slider(
        "Accuracy that may be lost (points)", 0.0, 10.0, float(stored.get("max_drop_points", DROP)), 0.1,
        format="%.1f", key="drop", bind="query-params",
    )  # fmt: skip
    ratio = middle.slider(
        "Latency at most (share of the baseline)", 0.05, 1.0, float(stored.get("max_latency_ratio", RATIO)),
        0.05, format="%.2f", key="ratio", bind="query-params",
    )  # fmt: skip
    only = right.toggle("Show only feasible", key="feasible", bind="query-params")
    return Goal(drop, ratio), only


def _draw(frame: pd.DataFrame, goal: Goal, feasible_only: bool, x: str, target: str) -> None:
    frame = frame.assign(front=on_front(frame, x), feasible=within_goal(frame, goal))
    st.markdown(_best(frame, goal))
    shown = frame[frame["feasible"] | frame["baseline"]] if feasible_only else frame
    chosen, second = (name if name in set(frame["variant"]) else None for name in selection())
    # Two points need the width: their panel stands below the chart.
    left, right = st.columns([3, 2]) if chosen and not second else (st.container(), st.container())
    with left:
        draw_pareto(shown, goal, x=x)
        st.caption("Click a point for its numbers; click another with shift to compare the two.")
    if chosen:
        with right.container(border=True):
            variant_details(frame, chosen, second, json.loads(target))
    variants_table(shown, [name for name in (chosen, second) if name], on_choose=select)


def _best(frame: pd.DataFrame, goal: Goal) -> str:
    best = best_within(frame, goal)
    if best is None:
        return "**Best within goal:** no variant meets it yet. Loosen the goal, or queue another amount."
    lost = float(frame.loc[frame["baseline"], "accuracy"].iloc[0]) - best["accuracy"]
    cost = f"for {100 * lost:.1f} points" if lost > 0 else "and loses no accuracy"
    return f"**Best within goal:** {best['label']} is {numbers.faster(best['ratio'])} {cost}."


main()
