"""Would a static network of the same latency be better? It says so, or queues one."""

from collections.abc import Mapping, Sequence

import streamlit as st

from app.components.plain import plain
from app.exits import Outcome
from app.numbers import NARROW
from app.queueing import queue_runs
from app.recipes import Plain
from app.rival import Rival, away, best_alike, static_recipe, verdict
from db.models import Job, Run, Stage

LABEL = "Queue a static network of the same latency"


def static_rival(
    outcome: Outcome,
    run: Run,
    stage: Stage,
    *,
    before: float,
    found: Sequence[Rival],
    queued: Mapping[str, tuple[Run, Job | None]],
) -> None:
    """before: latency ratio of the stage before the exits. queued: the experiment's runs by their name."""
    baseline_ms = outcome.explored.report.baseline_ms
    st.markdown("**A static network of the same latency**")
    if baseline_ms is None:
        st.caption("The baseline was not timed beside these exits. Retry the run to compare them.")
        return
    point = outcome.point
    ratio = point.mean_ms / baseline_ms
    rival = best_alike(found, ratio)
    if rival is not None:
        st.markdown(verdict(rival, point.accuracy, point.mean_ms))
        st.caption(f"Static: {plain(rival.name)}, within 5 % of this latency, on the same target.")
        return
    steps = run.recipe["steps"][: stage.index - 1]
    recipe = static_recipe(steps, stage.settings, amount=1 - ratio / before, mean_ms=point.mean_ms)
    if recipe is None:
        st.caption("At these thresholds the exits are not faster than the network without them.")
        return
    _queue_or_wait(recipe, run, ratio, found, queued.get(recipe["name"]))


def _queue_or_wait(
    recipe: Plain, run: Run, ratio: float, found: Sequence[Rival], there: tuple[Run, Job | None] | None
) -> None:
    """there: the run of this recipe and its job, if it was queued before."""
    name, pruning, job = plain(recipe["name"]), recipe["steps"][-1], there[1] if there else None
    if job is not None and job.state in ("queued", "running"):
        st.caption(f"{name} is {job.state}; its result appears here.")
    elif job is not None and job.state == "done":
        made = next((rival for rival in found if rival.name == recipe["name"]), None)
        far = "" if made is None else f" by {away(made, ratio)}"
        st.caption(f"{name} missed this latency{far}, too far to compare.")
    else:
        amount = f"{pruning['amount']:.0%}".replace("%", f"{NARROW}%")
        st.caption(
            f"None within 5{NARROW}% yet. Pruning would remove {amount} of the latency and train for "
            f"{pruning['recovery_epochs']} epochs, as the exits were."
        )
        if st.button(LABEL, icon=":material/add_circle:"):
            experiment = run.experiment
            queue_runs(experiment.model_id, experiment.dataset_id, [recipe], seed=run.seed)
            st.rerun()
