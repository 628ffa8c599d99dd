"""What would it cost to be faster? Every variant of an experiment on one target."""

import json

import pandas as pd
import streamlit as st

import app.session
from app import numbers
from app.charts.variants import Goal, best_within, on_front, variants_frame, within_goal
from app.components.compare_panel import compare_panel
from app.components.goal import goal_sliders
from app.components.linked import linked_choice
from app.components.live import live
from app.components.pareto_chart import draw_pareto, select, selection
from app.components.plain import plain
from app.components.variant_panel import variant_details
from app.components.variants_table import variants_table
from db import runs, variants
from workers.catalog import METHODS
from workers.places import USUAL

FAMILIES = {name: method.family for name, method in METHODS.items()}


def main() -> None:
    live("/api/state/runs", key="live", seconds=2)
    st.title("Trade-offs")
    with app.session.reading() as session:
        experiments = runs.experiments(session)
        newest = variants.newest_measurement(session)
    if not experiments:
        return _empty()
    names = {e.id: f"{e.model.name} on {e.dataset.name}" for e in experiments}
    filters = st.columns([4, 7, 3])
    experiment = linked_choice(
        filters[0], "Experiment", names, key="experiment", belongs="drop ratio variant second".split()
    )
    with app.session.reading() as session:
        warned = runs.warnings(session, experiment)
    frames = _frames(experiment, newest)
    if not frames:
        return _empty()
    # The target with most points first, of several that of the usual runtime.
    order = sorted(
        frames, key=lambda target: (-len(frames[target][0]), json.loads(target)["runtime"] != USUAL)
    )
    targets = {target: numbers.target_name(target) for target in order}
    target = linked_choice(filters[1], "Target", targets, key="target")
    axis = filters[2].segmented_control(
        "Latency", ["ratio", "ms"], default="ratio", key="x", bind="query-params", required=True,
    )  # fmt: skip
    goal = goal_sliders(next(e for e in experiments if e.id == experiment))
    for sentence in warned:
        st.warning(plain(sentence, 600))
    frame, refused = frames[target]
    if frame.empty or not frame["baseline"].any():
        st.info("Nothing of this experiment could be measured here.")
    else:
        _draw(frame, goal, "latency_ms" if axis == "ms" else "ratio", target)
    for label, why in refused.items():
        st.caption(f"**{plain(label)}** has no numbers on this target. {plain(why)}")
    return None


@st.cache_data(max_entries=8, show_spinner=False)
def _frames(experiment: str, newest: int) -> dict[str, tuple[pd.DataFrame, dict[str, str]]]:  # noqa: ARG001
    """Per target a frame, and by name why there are no numbers of a variant.

    newest: id of the newest measurement, for the cache: with another one all is read again.
    """
    with app.session.reading() as session:
        rows = variants.comparison(session, experiment)
        methods = variants.methods(session, experiment)
    targets = dict.fromkeys(row["target"] for row in rows)
    found = {}
    for target in targets:
        own = [row for row in rows if row["target"] == target]
        frame = variants_frame([row for row in own if row["ratio"] is not None], methods, FAMILIES)
        found[target] = frame, {row["name"]: json.loads(row["refused"])[0] for row in own if row["refused"]}
    return found


def _empty() -> None:
    st.info("No measured variant yet. Queue a run; its points appear here when it ends.")
    st.page_link("views/new_run.py", label="New run", icon=":material/add:")


def _draw(frame: pd.DataFrame, goal: Goal, x: str, target: str) -> None:
    frame = frame.assign(front=on_front(frame, x), feasible=within_goal(frame, goal) & frame["last"])
    st.markdown(_best(frame, goal))
    shown = _shown(frame)
    chosen, second = (name if name in set(frame["variant"]) else None for name in selection())
    # Two points need the width: their panel stands below the chart.
    left, right = st.columns([4, 3]) if chosen and not second else (st.container(), st.container())
    with left:
        draw_pareto(shown, goal, x=x)
    if chosen:
        with right.container(border=True, key="panel"):
            if second:
                compare_panel(frame, chosen, second, json.loads(target))
            else:
                variant_details(frame, chosen, json.loads(target))
    variants_table(shown, [name for name in (chosen, second) if name], on_choose=select)


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """What the two switches leave."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Click for numbers, shift-click to compare. Line: Pareto front; green: goal.")
        st.space("stretch")
        every = st.toggle(
            "Show every stage", key="stages", bind="query-params",
            help="Also what a run was on its way, such as pruned and not yet fine-tuned; never on the front.",
        )  # fmt: skip
        only = st.toggle("Show only feasible", key="feasible", bind="query-params")
    shown = frame if every else frame[frame["last"]]
    return shown[shown["feasible"] | shown["baseline"]] if only else shown


def _best(frame: pd.DataFrame, goal: Goal) -> str:
    best = best_within(frame, goal)
    if best is None:
        return "**Best within goal:** no variant meets it yet. Loosen the goal, or queue another amount."
    lost = round(100 * (float(frame.loc[frame["baseline"], "accuracy"].iloc[0]) - best["accuracy"]), 1)
    cost = f"for {lost:.1f} points" if lost > 0 else "and loses no accuracy"
    return f"**Best within goal:** {plain(best['label'])} is {numbers.faster(best['ratio'])} {cost}."


main()
