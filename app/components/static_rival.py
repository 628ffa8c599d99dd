"""Would a static network of the same latency be better? It says so, or queues one."""

import streamlit as st

import app.session
from app.answers import Answers, answers_of, paired
from app.components.plain import plain
from app.exits import Outcome
from app.numbers import NARROW, milliseconds, share
from app.queueing import queue_runs
from app.rival import Contest, Rival, alike, amount_for, deciding, static_recipe, verdict
from db import variants
from db.models import Run

FIRST = "Queue a static network of the same latency"
AGAIN = "Queue another static network"


def static_rival(outcome: Outcome, run: Run, contest: Contest) -> None:
    st.markdown("**A static network of the same latency**")
    point, baseline_ms = outcome.point, outcome.explored.report.baseline_ms
    if baseline_ms is None:
        st.caption("The baseline was not timed beside these exits. Retry the run to compare them.")
        return
    ratio = point.mean_ms / baseline_ms
    rival = deciding(contest, ratio, point.accuracy)
    if rival is not None:
        st.markdown(verdict(rival, ratio, point.accuracy, point.mean_ms, _p_value(outcome, rival)))
        st.caption(f"{plain(rival.name)}, on the same target.")
        if alike(rival, ratio) or rival.ratio < ratio:
            return
    if contest.unfinished is not None:
        name, state = contest.unfinished
        waits = state in ("queued", "running")
        st.caption(f"{plain(name)} {f'is {state}; its result appears here' if waits else f'has {state}'}.")
        if waits:
            return
    amount = amount_for(contest, ratio)
    if amount is not None:
        _offer(run, contest, amount, point.mean_ms)
    elif contest.narrowest is not None:
        st.caption(f"Pruning goes no further than to {milliseconds(contest.narrowest * baseline_ms)}.")
    elif ratio < contest.before:
        st.caption("Pruning cannot remove so much.")
    else:
        st.caption("At these thresholds the exits are not faster than the network without them.")


def _p_value(outcome: Outcome, rival: Rival) -> float | None:
    """Of both being right equally often on the validation samples."""
    with app.session.reading() as session:
        found = variants.whole(session, rival.variant)
    static = None if found is None else answers_of(variants.stored(found[0], found[1], "answers"))
    kept = outcome.explored.kept
    own = Answers(kept.given("validation", outcome.thresholds), kept.labels["validation"])
    pair = None if static is None else paired(own, static)
    return None if pair is None else pair[2]


def _offer(run: Run, contest: Contest, amount: float, mean_ms: float) -> None:
    recipe = static_recipe(contest.steps, amount, mean_ms)
    pruning, lesson = recipe["steps"][contest.place : contest.place + 2]
    st.caption(
        f"None within 5{NARROW}% yet. Pruning would remove {share(pruning['amount'], 0)} of the latency and "
        f"train for {lesson['epochs']} epochs, as the exits were."
    )
    if st.button(AGAIN if contest.asked else FIRST, icon=":material/add_circle:"):
        # Where every run is measured that asks for nothing else; there the exits were calibrated, too.
        queue_runs(run.experiment.model_id, run.experiment.dataset_id, [recipe], seed=run.seed)
        st.rerun()
