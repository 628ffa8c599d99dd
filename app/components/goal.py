"""The goal of an experiment as two sliders: kept with the experiment, and in the URL."""

import streamlit as st

import app.session
from app.charts.variants import Goal
from app.components.linked import begin, remember
from db import runs
from db.models import Experiment

DROP, RATIO = 1.0, 0.6
MOST_DROP, LEAST_RATIO = 10.0, 0.05


def goal_sliders(experiment: Experiment) -> Goal:
    """Start at the URL's goal, else at the experiment's. Only moving a slider changes what is kept."""
    drop_key, ratio_key = f"drop-{experiment.id}", f"ratio-{experiment.id}"

    def keep() -> None:
        goal = {
            "max_drop_points": st.session_state[drop_key],
            "max_latency_ratio": st.session_state[ratio_key],
        }
        with app.session.writing() as session:
            runs.set_goal(session, experiment.id, goal)

    kept = experiment.goal
    begin(drop_key, "drop", float(kept.get("max_drop_points", DROP)), low=0.0, high=MOST_DROP)
    begin(ratio_key, "ratio", float(kept.get("max_latency_ratio", RATIO)), low=LEAST_RATIO, high=1.0)
    left, right = st.columns(2)
    drop = left.slider(
        "Accuracy to lose at most (points)", 0.0, MOST_DROP, step=0.1, format="%.1f", key=drop_key,
        on_change=keep,
    )  # fmt: skip
    ratio = right.slider(
        "Latency at most (share of the baseline)", LEAST_RATIO, 1.0, step=0.05, format="%.2f", key=ratio_key,
        on_change=keep,
    )  # fmt: skip
    remember({"drop": f"{drop:g}", "ratio": f"{ratio:g}"})
    return Goal(drop, ratio)
