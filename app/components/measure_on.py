"""A finished run on another machine: asked for, and how far that is."""

import streamlit as st

import app.session
from app import numbers
from app.components.error_box import error_box
from app.components.plain import plain
from app.components.progress import job_progress
from app.components.runtime_choice import known_runtimes, measured_in, runtime_names, target_names
from app.queueing import cancel, queue_measuring, retry
from db import jobs, workers
from db.models import Job

NOTE = "All stages of the run and its baseline are timed there in one session; nothing is trained again."
WAITS = "It is offline: the job waits until it is back."


def measure_on(run_id: str, *, key: str) -> None:
    """A button that opens the choice; nothing before the run is done, or where no machine has a name."""
    with app.session.reading() as session:
        targets = workers.targets(session)
        job = jobs.latest(session, [run_id]).get(run_id)
    if not targets or job is None or job.state != "done":
        return
    with st.popover("Measure on", icon=":material/speed:", key=f"measure-{key}"):
        names = target_names(targets)
        target = st.selectbox("Machine", names, format_func=names.__getitem__, key=f"machine-{key}")
        there = known_runtimes(each.worker for each in targets if each.name == target)
        titles = runtime_names(there, target)
        runtime = st.selectbox("Runtime", titles, format_func=titles.__getitem__, key=f"runtime-{key}")
        away = any(each.name == target and not each.online for each in targets)
        st.caption(f"{NOTE} {WAITS}" if away else NOTE)
        if st.button("Queue", type="primary", width="stretch", key=f"queue-measuring-{key}"):
            queue_measuring(run_id, target, runtime)
            st.switch_page("views/runs.py", query_params={"run": run_id})


def measured_elsewhere(run_id: str) -> None:
    """What was asked of other machines; the newest of each place. The page polls the state of the run."""
    with app.session.reading() as session:
        found = {(j.request["target"], j.request["runtime"]): j for j in jobs.measuring(session, run_id)}
        online = workers.online_queues(session)
    if not found:
        return
    st.subheader("Measured elsewhere")
    for (target, runtime), job in found.items():
        with st.container(border=True, gap="xsmall"):
            st.markdown(f"**{plain(target)}** · {plain(measured_in(runtime))} · {job.state}")
            _standing(job, online)


def _standing(job: Job, online: set[str]) -> None:
    if job.state == "failed" and job.error:
        error_box(job.error)
    if job.state == "done" and job.ended_at is not None:
        st.caption(f"{numbers.age(job.ended_at)} ago by {job.worker}")
    elif job.state in ("queued", "running"):
        job_progress(job, key=f"progress-{job.id}", online=online)
        if st.button("Cancel measuring", disabled=job.cancel_requested, key=f"cancel-{job.id}"):
            cancel(job.id)
            st.rerun()
    elif st.button("Measure again", key=f"retry-{job.id}"):
        retry(job)
        st.rerun()
