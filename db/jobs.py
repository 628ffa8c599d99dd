"""A job's life, as the database sees it: queued -> running -> done | failed | cancelled.

Every write of a running job carries the attempt it belongs to and changes nothing when that is stale, so a
lost worker that comes back can do no harm.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Update, delete, func, select, true, update
from sqlalchemy.orm import Session

from db import workers
from db.clock import seconds_now
from db.models import ENDED, Job, Point, Worker

LEASE_SECONDS = 10.0
#: After so many lost workers without a new epoch or stage in between, the job itself is at fault.
MAX_LOSSES = 3
#: Kinds of jobs that give way to all others.
PATIENT = ("predictor",)
#: Kinds that say nothing of how their subject stands.
ASIDE = ("measure", "blocks")


def add(session: Session, kind: str, subject_id: str, *, queue: str, request: Mapping[str, Any]) -> Job:
    """Queue a job. The message that wakes a worker is sent after the commit."""
    job = Job(kind=kind, subject_id=subject_id, queue=queue, request=dict(request))
    session.add(job)
    session.flush()
    return job


def measure(session: Session, run_id: str, *, target: str, runtime: str) -> Job:
    """Have a finished run measured on a machine that is known by its name; the same twice is one job."""
    request = {"target": target, "runtime": runtime}
    for job in measuring(session, run_id):
        if job.request == request and job.state in ("queued", "running"):
            return job
    return add(session, "measure", run_id, queue=workers.target_queue(target), request=request)


def claim(session: Session, job_id: str, worker: str) -> int | None:
    """Take a queued job; returns its new attempt, or None when another worker was faster."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == "queued")
        .values(
            state="running",
            attempt=Job.attempt + 1,
            worker=worker,
            lease_until=seconds_now() + LEASE_SECONDS,
            started_at=seconds_now(),
            text="Starting",
            error=None,
        )
        .returning(Job.attempt)
    )
    return session.scalar(statement)


def claim_next(session: Session, queues: Sequence[str], worker: str) -> tuple[str, int] | None:
    """Take the oldest queued job of these queues; (id, attempt), or None when there is none.

    What nobody waits for comes last.
    """
    waiting = select(Job.id).where(Job.state == "queued", Job.queue.in_(queues))
    waiting = waiting.order_by(Job.kind.in_(PATIENT), Job.created_at)
    for job_id in session.scalars(waiting.limit(10)).all():
        attempt = claim(session, job_id, worker)
        if attempt is not None:
            return job_id, attempt
    return None


def heartbeat(session: Session, job_id: str, attempt: int) -> bool | None:
    """Extend the lease. True: cancel was asked for; False: go on; None: the job is no longer ours."""
    statement = _own(job_id, attempt).values(lease_until=seconds_now() + LEASE_SECONDS)
    return session.scalar(statement.returning(Job.cancel_requested))


def progress(session: Session, job_id: str, attempt: int, *, stage: int, share: float, text: str) -> bool:
    """False when the job is no longer ours."""
    return _changed(session, _own(job_id, attempt).values(stage=stage, share=share, text=text))


def point(session: Session, job_id: str, stage: int, epoch: int, values: Mapping[str, Any]) -> None:
    """Keep an epoch's point; a resumed run tells its earlier ones again."""
    known = session.scalar(
        select(Point).where(Point.job_id == job_id, Point.stage == stage, Point.epoch == epoch)
    )
    if known is None:
        session.add(Point(job_id=job_id, stage=stage, epoch=epoch, values=dict(values)))
        got_on(session, job_id)
    else:
        known.values = dict(values)


def got_on(session: Session, job_id: str) -> None:
    """The job has something that it had not before: it may lose as many workers again."""
    session.execute(update(Job).where(Job.id == job_id, Job.losses > 0).values(losses=0))


def end(
    session: Session, job_id: str, attempt: int, state: str, error: Mapping[str, Any] | None = None
) -> bool:
    """Finish a job of ours as done, failed or cancelled; False when it is no longer ours."""
    assert state in ENDED
    values: dict[str, Any] = {"state": state, "ended_at": seconds_now(), "lease_until": None}
    if error is not None:
        values["error"] = dict(error)
    if state == "done":
        values |= {"share": 1.0, "text": "Done"}
    return _changed(session, _own(job_id, attempt).values(**values))


def release(session: Session, job_id: str, attempt: int) -> bool:
    """Give a job of ours back to the queue, e.g. when its worker is told to stop."""
    return _changed(session, _own(job_id, attempt).values(**_WAITING))


def others_wait(session: Session, worker: str) -> bool:
    """True when a patient job of this worker keeps another one waiting."""
    queues = session.scalar(select(Worker.queues).where(Worker.id == worker)) or []
    waiting = select(Job.id).where(Job.state == "queued", Job.queue.in_(queues), Job.kind.not_in(PATIENT))
    return session.scalar(waiting.limit(1)) is not None


def lose(session: Session, job_id: str, attempt: int, what: str) -> bool:
    """The process of a job of ours is gone: queue it again, or fail it when that was once too often.

    what: the sentence to fail with. True when it waits again.
    """
    return bool(_give_back(session, _owned(job_id, attempt), what))


def reclaim(session: Session, worker: str) -> list[str]:
    """Queue what an earlier process of this worker left running. Only for a worker that is just starting.

    Returns the ids to wake workers for.
    """
    return _give_back(session, (Job.state == "running", Job.worker == worker), _LOST)


def reap(session: Session) -> list[str]:
    """Put jobs whose worker was lost back into the queue; fail those that lost too many.

    Returns the ids to wake workers for.
    """
    return _give_back(session, (Job.state == "running", Job.lease_until < seconds_now()), _LOST)


def leave_gpu(session: Session) -> list[str]:
    """What waits for a GPU goes to the CPU once no worker with one is online. Returns the ids to wake for."""
    if any("gpu" in worker.queues for worker in workers.online(session)):
        return []
    waiting = update(Job).where(Job.state == "queued", Job.queue == "gpu")
    return list(session.scalars(waiting.values(queue="cpu").returning(Job.id)))


_WAITING: Mapping[str, Any] = {"state": "queued", "lease_until": None, "text": "Waiting for a worker"}
_LOST = "The worker was lost while it did this."


def _give_back(session: Session, which: Sequence[ColumnElement[bool]], what: str) -> list[str]:
    cancelled = {"state": "cancelled", "ended_at": seconds_now(), "lease_until": None}
    session.execute(update(Job).where(*which, Job.cancel_requested).values(**cancelled))
    error = {
        "where": "worker",
        "what": f"{what} That was {MAX_LOSSES} times in a row.",
        "fix": "Look into the job's log for what ended it (often memory); then retry.",
    }
    failed = {"state": "failed", "ended_at": seconds_now(), "lease_until": None, "error": error}
    lost = Job.losses + 1
    session.execute(update(Job).where(*which, lost >= MAX_LOSSES).values(**failed, losses=lost))
    return list(session.scalars(update(Job).where(*which).values(**_WAITING, losses=lost).returning(Job.id)))


def request_cancel(session: Session, job_id: str) -> None:
    """A queued job ends at once; a running one when its worker next looks (every second)."""
    queued = update(Job).where(Job.id == job_id, Job.state == "queued")
    session.execute(queued.values(state="cancelled", ended_at=seconds_now()))
    session.execute(update(Job).where(Job.id == job_id, Job.state == "running").values(cancel_requested=True))


def retry(session: Session, job_id: str) -> bool:
    """Queue an ended job again; finished stages come from the cache. False when it has not ended."""
    statement = update(Job).where(Job.id == job_id, Job.state.in_(("failed", "cancelled")))
    return _changed(
        session,
        statement.values(
            state="queued", losses=0, cancel_requested=False, error=None, ended_at=None, share=0.0,
            text="Waiting for a worker",
        ),
    )  # fmt: skip


def remove(session: Session, job_id: str) -> None:
    """Forget a job that has ended."""
    session.execute(delete(Job).where(Job.id == job_id, Job.state.in_(ENDED)))


def latest(session: Session, subject_ids: Iterable[str], kind: str | None = None) -> dict[str, Job]:
    """The newest job of each of these models, datasets, runs or stages.

    kind: of that one alone; else of any but those that measure a run elsewhere or time a model's blocks.
    """
    kinds = Job.kind.not_in(ASIDE) if kind is None else Job.kind == kind
    own = select(Job).where(Job.subject_id.in_(list(subject_ids)), kinds)
    return {job.subject_id: job for job in session.scalars(own.order_by(Job.created_at))}


def measuring(session: Session, run_id: str) -> Sequence[Job]:
    """All that measure this run on machines elsewhere, oldest first."""
    statement = select(Job).where(Job.subject_id == run_id, Job.kind == "measure")
    return session.scalars(statement.order_by(Job.created_at)).all()


def active(session: Session, kinds: Sequence[str] | None = None) -> Sequence[Job]:
    """Queued and running, oldest first; of all kinds, unless some are named."""
    waiting = select(Job).where(_of(kinds), Job.state.in_(("queued", "running")))
    return session.scalars(waiting.order_by(Job.created_at)).all()


def count_by_state(session: Session, kinds: Sequence[str] | None = None) -> dict[str, int]:
    statement = select(Job.state, func.count()).where(_of(kinds)).group_by(Job.state)
    return {row[0]: row[1] for row in session.execute(statement)}


def points(session: Session, job_id: str) -> Sequence[Point]:
    """In the order of stages and epochs."""
    statement = select(Point).where(Point.job_id == job_id)
    return session.scalars(statement.order_by(Point.stage, Point.epoch)).all()


def count_points(session: Session, job_id: str) -> int:
    return session.scalar(select(func.count()).where(Point.job_id == job_id)) or 0


def _of(kinds: Sequence[str] | None) -> ColumnElement[bool]:
    return true() if kinds is None else Job.kind.in_(kinds)


def _owned(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == job_id, Job.state == "running", Job.attempt == attempt)


def _own(job_id: str, attempt: int) -> Update:
    return update(Job).where(*_owned(job_id, attempt))


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount == 1
