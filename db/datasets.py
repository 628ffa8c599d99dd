"""What is said to the database about datasets."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Dataset


def add(session: Session, *, name: str, source: str, upload_sha256: str | None, seed: int = 0) -> Dataset:
    """A dataset that is yet to be imported. source: the uploaded file's name, or a known word."""
    dataset = Dataset(name=name, source=source, upload_sha256=upload_sha256, seed=seed)
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
