"""What is said to the database about worker processes, and about the machines that they let measure on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.clock import seconds_now
from db.models import Worker

#: A worker that has not been seen for this long counts as gone.
ONLINE_SECONDS = 15.0
_TARGET = "target."


@dataclass(frozen=True)
class NamedTarget:
    """A machine to measure on, by the worker that was seen last under its name."""

    name: str
    worker: Worker
    online: bool


def target_queue(target: str) -> str:
    return f"{_TARGET}{target}"


def target_of(queues: Sequence[str]) -> str:
    """The name that one of these queues belongs to; empty when none is a target's."""
    return next((queue.removeprefix(_TARGET) for queue in queues if queue.startswith(_TARGET)), "")


def online(session: Session) -> Sequence[Worker]:
    """Seen lately, by the database's clock."""
    statement = select(Worker).where(Worker.seen_at > seconds_now() - ONLINE_SECONDS)
    return session.scalars(statement.order_by(Worker.id)).all()


def online_queues(session: Session) -> set[str]:
    return {queue for worker in online(session) for queue in worker.queues}


def targets(session: Session) -> list[NamedTarget]:
    """All that ever were online and were not forgotten, by name."""
    statement = select(Worker, Worker.seen_at > seconds_now() - ONLINE_SECONDS).order_by(Worker.seen_at)
    newest = {target_of(worker.queues): (worker, bool(seen)) for worker, seen in session.execute(statement)}
    return [NamedTarget(name, *newest[name]) for name in sorted(newest) if name]


def seen(session: Session, worker_id: str, *, queues: Sequence[str], device: str) -> None:
    """Say that a worker is there, now."""
    known = update(Worker).where(Worker.id == worker_id)
    values = {"queues": list(queues), "device": device, "seen_at": seconds_now()}
    if session.scalar(known.values(**values).returning(Worker.id)) is None:
        session.add(Worker(id=worker_id, facts={}, **values))


def describe(session: Session, worker_id: str, facts: Mapping[str, Any]) -> None:
    """What the worker's machine is."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(facts=dict(facts)))


def gone(session: Session, worker_id: str) -> None:
    """A worker that ends in good order. That of a target stays known: jobs may wait for it."""
    worker = session.get(Worker, worker_id)
    if worker is not None and target_of(worker.queues):
        left = update(Worker).where(Worker.id == worker_id)
        session.execute(left.values(seen_at=seconds_now() - ONLINE_SECONDS))
    elif worker is not None:
        session.delete(worker)


def forget(session: Session, target: str) -> None:
    """Remove a target that is offline; it is known again as soon as its worker starts."""
    away = select(Worker).where(Worker.seen_at <= seconds_now() - ONLINE_SECONDS)
    for worker in session.scalars(away):
        if target_of(worker.queues) == target:
            session.delete(worker)
