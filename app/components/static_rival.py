"""Would a static network of the same latency be better? It says so, or queues one."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.components.plain import plain
from app.exits import Outcome
from app.numbers import NARROW, milliseconds, share
from app.queueing import queue_runs
from app.recipes import Plain
from app.rival import Contest, alike, amount_for, deciding, static_recipe, verdict
from db.models import Run
from workers.places import USUAL

FIRST = "Queue a static network of the same latency"
AGAIN = "Queue another static network"


def static_rival(outcome: Outcome, run: Run, contest: Contest, request: Mapping[str, Any]) -> None:
    """request: what the run with exits was asked, where it was to be measured above all."""
    st.markdown("**A static network of the same latency**")
    point, baseline_ms = outcome.point, outcome.explored.report.baseline_ms
    if baseline_ms is None:
        st.caption("The baseline was not timed beside these exits. Retry the run to compare them.")
        return
    ratio = point.mean_ms / baseline_ms
    rival = deciding(contest, ratio, point.accuracy)
    if rival is not None:
        st.markdown(verdict(rival, ratio, point.accuracy, point.mean_ms))
        st.caption(f"{plain(rival.name)}, on the same target.")
        if alike(rival, ratio) or rival.ratio < ratio:
            return
    amount = amount_for(contest, ratio)
    if contest.waiting is not None:
        name, state = contest.waiting
        st.caption(f"{plain(name)} is {state}; its result appears here.")
    elif amount is not None:
        _offer(run, static_recipe(contest.steps, amount, point.mean_ms), request, again=bool(contest.tries))
    elif contest.narrowest is not None:
        st.caption(f"Pruning goes no further than to {milliseconds(contest.narrowest * baseline_ms)}.")
    else:
        st.caption("At these thresholds the exits are not faster than the network without them.")


def _offer(run: Run, recipe: Plain, request: Mapping[str, Any], *, again: bool) -> None:
    pruning = next(step for step in recipe["steps"] if step.get("amount_of") == "latency")
    st.caption(
        f"None within 5{NARROW}% yet. Pruning would remove {share(pruning['amount'], 0)} of the latency and "
        f"train for {pruning['recovery_epochs']} epochs, as the exits were."
    )
    if st.button(AGAIN if again else FIRST, icon=":material/add_circle:"):
        queue_runs(
            run.experiment.model_id,
            run.experiment.dataset_id,
            [recipe],
            seed=run.seed,
            runtime=request.get("runtime", USUAL),
            target=request.get("target", ""),
        )
        st.rerun()
