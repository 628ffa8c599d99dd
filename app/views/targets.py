"""Where does the work happen? Machines to measure on, workers that are online, what they do, what waits."""

from collections.abc import Collection, Sequence
from functools import partial

import streamlit as st

import app.session
from app import numbers
from app.components.live import live
from app.components.progress import job_progress
from app.components.runtime_choice import runtime_list
from app.queueing import forget_target
from db import jobs, workers
from db.models import Job, Worker
from db.workers import NamedTarget, target_of, target_queue
from workers.quantization.scheme import X86

START_ONE = "paredown worker"
ADD_ONE = """\
export PAREDOWN_DATABASE_URL=postgresql://paredown:PASSWORD@SERVER/paredown
export PAREDOWN_BROKER_URL=redis://SERVER:6379/0
export PAREDOWN_WEB_URL=http://SERVER:8501
paredown worker --target NAME"""


def main() -> None:
    live("/api/state/targets", key="live", seconds=2)
    st.title("Targets")
    with app.session.reading() as session:
        online, targets = workers.online(session), workers.targets(session)
        active = jobs.active(session)
        counts = jobs.count_by_state(session)
    queues = {queue for worker in online for queue in worker.queues}
    st.subheader("Workers online")
    if not online:
        st.info("No worker is online. Queued runs wait until one is; this starts one on this machine:")
        st.code(START_ONE, language="shell")
    _cards([partial(_card, worker, active, queues) for worker in online])
    away = [target for target in targets if not target.online]
    if away:
        st.subheader("Offline")
        _cards([partial(_away, target, active) for target in away])
    if online and not queues & {"cpu", "gpu"}:
        st.warning(
            "Only machines to measure on are online: runs wait until a worker is that carries them out."
        )
    elif online and "gpu" not in queues:
        st.caption("No GPU worker is online: the CPU takes what would train on one.")
    with st.expander("Add a machine to measure on", icon=":material/add:"):
        st.markdown(
            "Install Paredown there and start a worker under a name. It needs this dashboard's PostgreSQL, "
            "Redis and address, and shares no folder: files come from here, checked by SHA-256."
        )
        st.code(ADD_ONE, language="shell")
    _queues(active, counts)


def _cards(draw: Sequence["partial[None]"]) -> None:
    """Two beside each other."""
    for first in range(0, len(draw), 2):
        for column, card in zip(st.columns(2), draw[first : first + 2], strict=False):
            with column.container(border=True):
                card()


def _card(worker: Worker, active: Sequence[Job], queues: Collection[str]) -> None:
    target = target_of(worker.queues)
    name = f"**{target}** &nbsp; :gray[{worker.id}]" if target else f"**{worker.id}**"
    st.markdown(f"{name} &nbsp; :green-badge[online] &nbsp; :gray[{worker.device}]")
    _machine(worker)
    running = [job for job in active if job.worker == worker.id and job.state == "running"]
    for job in running:
        _job(job, queues)
    if not running:
        st.caption("Idle")


def _away(target: NamedTarget, active: Sequence[Job]) -> None:
    seen = numbers.age(target.worker.seen_at)
    st.markdown(f"**{target.name}** &nbsp; :gray[{target.worker.id}] &nbsp; :gray-badge[offline]")
    st.caption(f"Last seen {seen} ago")
    _machine(target.worker)
    waiting = [job for job in active if job.queue == target_queue(target.name) and _keeps_waiting(job)]
    for job in waiting:
        _job(job, ())
    if not waiting and st.button(
        "Forget", key=f"forget-{target.name}", help="It is known again once it starts."
    ):
        forget_target(target.name)
        st.rerun()


def _keeps_waiting(job: Job) -> bool:
    """False for what nobody asked for by name, such as the times that forms guess from."""
    return job.state == "queued" and job.kind not in jobs.PATIENT


def _job(job: Job, queues: Collection[str]) -> None:
    """How far it is, and the way to where it can be cancelled. queues: those that workers take from."""
    job_progress(job, key=f"progress-{job.id}", online=queues)
    if job.kind in ("run", "measure"):
        st.page_link("views/runs.py", label="Open the run", query_params={"run": job.subject_id})


def _machine(worker: Worker) -> None:
    with st.container(horizontal=True, gap="xsmall"):
        for queue in worker.queues:
            st.badge(queue, color="gray")
    facts = worker.facts or {}
    if "cpu" not in facts:
        st.caption("It is looking at its machine; that takes a few seconds.")
        return
    x86 = facts.get("system", "").rpartition(" ")[2].lower() in X86  # others have no VNNI, and miss nothing
    vnni = f"with{'' if facts['vnni'] else 'out'} VNNI" if x86 and "vnni" in facts else ""  # int8 gains by it
    cores, instructions = facts.get("logical_cores", "–"), facts.get("instructions", "")
    st.caption(f"{facts['cpu']} · {cores} cores · {instructions} {vnni}")
    memory = numbers.size(facts.get("memory_bytes"))
    st.caption(f"{memory} memory · {facts.get('system', '')} · host {facts.get('host', '–')}")
    runtime_list(worker)


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
