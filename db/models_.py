"""What is said to the database about models. (The underscore: `models.py` holds the tables.)"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from db.models import Experiment, Job, Measurement, Model, Run, Stage, Variant
from db.names import free_name


def add(session: Session, *, name: str, upload_sha256: str) -> Model:
    """A model that is yet to be imported; a name that is taken gets a number."""
    model = Model(name=free_name(session, Model.name, name), upload_sha256=upload_sha256)
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


def accuracies(session: Session) -> dict[str, float]:
    """Of each model that was measured: the accuracy of its newest baseline, on the split that choices use."""
    statement = (
        select(Experiment.model_id, Measurement.value)
        .join(Run, Run.experiment_id == Experiment.id)
        .join(Stage, Stage.run_id == Run.id)
        .join(Variant, Variant.stage_id == Stage.id)
        .join(Measurement, Measurement.variant_id == Variant.id)
        .where(Stage.index == 0, Measurement.name == "accuracy", Measurement.split == "validation")
        .order_by(Run.created_at)
    )
    return {model: value for model, value in session.execute(statement) if value is not None}


def find(session: Session, model_id: str) -> Model | None:
    return session.get(Model, model_id)


def named(session: Session, project_id: str, name: str) -> Model | None:
    """The newest checked model of a project with this name or SHA-256 of its upload."""
    wanted = select(Model).where(
        Model.project_id == project_id,
        or_(Model.name == name, Model.upload_sha256 == name),
        Model.file_sha256.is_not(None),
    )
    return session.scalars(wanted.order_by(Model.created_at.desc()).limit(1)).first()


def remove(session: Session, model_id: str) -> None:
    """Forget a model that was refused; one that has runs is kept by their foreign keys."""
    session.execute(delete(Job).where(Job.subject_id == model_id))
    session.execute(delete(Model).where(Model.id == model_id))
