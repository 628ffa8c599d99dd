"""One run: what it does now, what each stage came to, and what went wrong."""

from json import dumps

import streamlit as st

import app.session
from app import numbers
from app.components.error_box import error_box
from app.components.job_log import job_log
from app.components.measure_on import measure_on, measured_elsewhere
from app.components.plain import plain
from app.components.progress import job_progress
from app.components.run_charts import draw_waterfalls, live_curves
from app.components.runtime_choice import measured_in
from app.queueing import cancel, retry
from app.recipes import chips
from db import jobs, runs
from db.models import Job, Run, Stage
from db.variants import first_numbers
from workers.catalog import METHODS

ICONS = {
    "done": ":green[:material/check_circle:]",
    "running": ":blue[:material/sync:]",
    "failed": ":red[:material/error:]",
    "cancelled": ":gray[:material/cancel:]",
    "waiting": ":gray[:material/radio_button_unchecked:]",
}


def run_details(run_id: str) -> None:
    """Draw the page of a run; the caller polls its state."""
    with app.session.reading() as session:
        run = runs.whole(session, run_id)
        job = jobs.latest(session, [run_id]).get(run_id)
    st.page_link("views/runs.py", label="All runs", icon=":material/arrow_back:")
    if run is None:
        st.warning("There is no such run. It may have been removed, or the link is cut short.")
        return
    st.title(plain(run.name))
    _subtitle(run, job)
    _actions(run, job)
    if job is not None and job.state == "failed" and job.error:
        error_box(job.error)
    for sentence in run.warnings:
        st.warning(plain(sentence, 600))
    left, right = st.columns([2, 3], gap="large")
    with left:
        _timeline(run, job)
        measured_elsewhere(run_id)
    with right:
        live_curves(run_id, titles(run))
    if job is not None:
        job_log(job)
    draw_waterfalls(run.stages, titles(run))


def titles(run: Run) -> list[str]:
    """Of all stages, the baseline first; a method that comes twice is numbered."""
    names = ["Baseline"]
    for step in run.recipe.get("steps", []):
        method = METHODS.get(step["method"])
        name = step["method"] if method is None else method.title
        names.append(f"{name} {names.count(name) + 1}" if name in names else name)
    return names


def _subtitle(run: Run, job: Job | None) -> None:
    state = "no job" if job is None else job.state
    runtime, target = ("" if job is None else job.request.get(key, "") for key in ("runtime", "target"))
    where = "" if job is None or job.worker is None else f" · {job.worker}"
    pair = f"{run.experiment.model.name} on {run.experiment.dataset.name}"
    measured = f" · measured in {measured_in(runtime, target)}" if runtime else ""
    st.caption(f"{plain(pair)} · {state} · {numbers.age(run.created_at)} ago{where}{measured}")


def _actions(run: Run, job: Job | None) -> None:
    with st.container(horizontal=True):
        if job is not None and job.state in ("queued", "running"):
            label = "Cancelling" if job.cancel_requested else "Cancel"
            if st.button(label, icon=":material/stop:", disabled=job.cancel_requested):
                cancel(job.id)
                st.rerun()
        if (
            job is not None
            and job.state in ("failed", "cancelled")
            and st.button(
                "Retry", icon=":material/refresh:", help="Finished stages are taken from the cache."
            )
        ):
            retry(job)
            st.rerun()
        if st.button("Duplicate and edit", icon=":material/content_copy:"):
            st.switch_page("views/new_run.py", query_params=_link(run, job))
        if job is not None and job.state == "done":
            last = run.stages[-1].own.id if run.stages else ""
            if st.button("Show in trade-offs", icon=":material/scatter_plot:"):
                params = {"experiment": run.experiment_id, "variant": last}
                st.switch_page("views/tradeoffs.py", query_params=params)
            if st.button("Where the time goes", icon=":material/timer:"):
                st.switch_page("views/profile.py", query_params={"variant": last})
        measure_on(run.id, key=run.id)


def _link(run: Run, job: Job | None) -> dict[str, str]:
    experiment = run.experiment
    recipe = dumps({"name": f"{run.name} (copy)"[:100], "steps": run.recipe.get("steps", [])})
    asked = {} if job is None else job.request
    where = {
        key: asked[name] for key, name in (("runtime", "runtime"), ("machine", "target")) if name in asked
    }
    return {"model": experiment.model_id, "dataset": experiment.dataset_id, "recipe": recipe, **where}


def _timeline(run: Run, job: Job | None) -> None:
    """Every stage from top to bottom; the first that is not finished has what the job is at."""
    finished = {stage.index: stage for stage in run.stages}
    names = ["Baseline", *chips(run.recipe)]
    at = next((index for index in range(len(names)) if index not in finished), len(names))
    for index, name in enumerate(names):
        stage = finished.get(index)
        state = "done" if stage else job.state if job and index == at else "waiting"
        with st.container(border=True, gap="xsmall"):
            st.markdown(f"{ICONS.get(state, ICONS['waiting'])} **{name}**")
            if stage:
                _outcome(stage)
            elif job and state == "running":
                part = (index / len(names), (index + 1) / len(names))
                job_progress(job, key=f"progress-{index}", within=part)
    if job and job.state == "running" and at == len(names):
        with st.container(border=True, gap="xsmall"):
            st.markdown(f"{ICONS['running']} **All stages side by side**")
            job_progress(job, key="progress-together", within=((at - 1) / at, 1.0))


def _outcome(stage: Stage) -> None:
    how = "from cache · " if stage.cached else f"{stage.seconds:.1f} s · " if stage.index else ""
    taken = [(m.name, m.value, m.target) for m in stage.own.measurements if m.split == "validation"]
    known = first_numbers(taken)
    accuracy, ratio = known.get("accuracy"), known.get("latency_ratio")
    speed = f" · {numbers.faster(ratio)}" if ratio is not None and stage.index else ""
    st.caption(f"{how}accuracy {numbers.share(accuracy)}{speed}")
    for note in stage.notes:
        st.caption(plain(note, 600))
