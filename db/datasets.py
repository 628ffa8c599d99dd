"""What is said to the database about datasets."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.models import Dataset, Job
from db.names import free_name


def add(session: Session, *, name: str, source: str, upload_sha256: str | None, seed: int = 0) -> Dataset:
    """A dataset that is yet to be imported; a name that is taken gets a number.

    source: the uploaded file's name, or a known word.
    """
    dataset = Dataset(
        name=free_name(session, Dataset.name, name), source=source, upload_sha256=upload_sha256, seed=seed
    )
    session.add(dataset)
    session.flush()
    return dataset


def imported(session: Session, dataset_id: str, *, sha256: str, facts: Mapping[str, Any]) -> None:
    """Keep what the import job found."""
    dataset = session.get_one(Dataset, dataset_id)
    dataset.sha256, dataset.facts = sha256, dict(facts)


def all_of(session: Session) -> Sequence[Dataset]:
    """Newest first."""
    return session.scalars(select(Dataset).order_by(Dataset.created_at.desc())).all()


def find(session: Session, dataset_id: str) -> Dataset | None:
    return session.get(Dataset, dataset_id)


def remove(session: Session, dataset_id: str) -> None:
    """Forget a dataset that was refused; one that has runs is kept by their foreign keys."""
    session.execute(delete(Job).where(Job.subject_id == dataset_id))
    session.execute(delete(Dataset).where(Dataset.id == dataset_id))
