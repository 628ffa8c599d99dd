"""Where does the work happen? Workers that are online, what they do, and what waits."""

from collections.abc import Sequence

import streamlit as st

import app.session
from app import numbers
from app.components.live import live
from app.components.progress import job_progress
from app.components.runtime_choice import runtime_list
from db import jobs, workers
from db.models import Job, Worker

KINDS = ("import", "run", "measure")
START_ONE = "paredown worker"


def main() -> None:
    live("/api/state/targets", key="live", seconds=2)
    st.title("Targets")
    with app.session.reading() as session:
        online = workers.online(session)
        active = jobs.active(session, KINDS)
        counts = jobs.count_by_state(session, KINDS)
    st.subheader("Workers online")
    if not online:
        st.info("No worker is online. Queued runs wait until one is; this starts one on this machine:")
        st.code(START_ONE, language="shell")
    for first in range(0, len(online), 2):
        for column, worker in zip(st.columns(2), online[first : first + 2], strict=False):
            with column.container(border=True):
                _card(worker, [job for job in active if job.worker == worker.id and job.state == "running"])
    if online and not any("gpu" in worker.queues for worker in online):
        st.caption("No GPU worker is online: the CPU takes what would train on one.")
    _queues(active, counts)


def _card(worker: Worker, running: Sequence[Job]) -> None:
    facts = worker.facts or {}
    st.markdown(f"**{worker.id}** &nbsp; :green-badge[online] &nbsp; :gray[{worker.device}]")
    with st.container(horizontal=True, gap="xsmall"):
        for queue in worker.queues:
            st.badge(queue, color="gray")
    if "cpu" in facts:
        st.caption(
            f"{facts['cpu']} · {facts.get('logical_cores', '–')} cores · {facts.get('instructions', '')}"
        )
        memory = numbers.size(facts.get("memory_bytes"))
        st.caption(f"{memory} memory · {facts.get('system', '')} · host {facts.get('host', '–')}")
    runtime_list(worker)
    for job in running:
        job_progress(job, key=f"progress-{job.id}")
        if job.kind == "run":
            st.page_link("views/runs.py", label="Open the run", query_params={"run": job.subject_id})
    if not running:
        st.caption("Idle")


def _queues(active: Sequence[Job], counts: dict[str, int]) -> None:
    st.subheader("Queues")
    waiting = [job for job in active if job.state == "queued"]
    names = sorted({"cpu", *(job.queue for job in active)})
    rows = {
        name: {
            "Waiting": sum(job.queue == name for job in waiting),
            "Running": sum(job.queue == name and job.state == "running" for job in active),
        }
        for name in names
    }
    st.table([{"Queue": name, **row} for name, row in rows.items()], border="horizontal", hide_index=True)
    ended = " · ".join(f"{counts.get(state, 0)} {state}" for state in ("done", "failed", "cancelled"))
    st.caption(f"Ended so far: {ended}")


main()
