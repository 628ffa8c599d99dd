"""What is said to the database about models. (The underscore: `models.py` holds the tables.)"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Model


def add(session: Session, *, name: str, upload_sha256: str) -> Model:
    """A model that is yet to be imported."""
    model = Model(name=name, upload_sha256=upload_sha256)
    session.add(model)
    session.flush()
    return model


def imported(
    session: Session,
    model_id: str,
    *,
    spec: Mapping[str, Any],
    facts: Mapping[str, Any],
    file_sha256: str,
    file_name: str,
) -> None:
    """Keep what the import job found. file_name: `model.pt2` or `model.onnx`."""
    model = session.get_one(Model, model_id)
    model.spec, model.facts = dict(spec), dict(facts)
    model.file_sha256, model.file_name = file_sha256, file_name


def all_of(session: Session) -> Sequence[Model]:
    """Newest first."""
    return session.scalars(select(Model).order_by(Model.created_at.desc())).all()
