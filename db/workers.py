"""What is said to the database about worker processes."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db.clock import seconds_now
from db.models import Worker

#: A worker that has not been seen for this long counts as gone.
ONLINE_SECONDS = 15.0


def online(session: Session) -> Sequence[Worker]:
    """Seen lately, by the database's clock."""
    statement = select(Worker).where(Worker.seen_at > seconds_now() - ONLINE_SECONDS)
    return session.scalars(statement.order_by(Worker.id)).all()


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
    """A worker that ends in good order."""
    session.execute(delete(Worker).where(Worker.id == worker_id))
