"""What is said to the database about experiments, runs, stages and their numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, selectinload

from db.models import Experiment, Measurement, Run, Stage, Variant


def experiment_of(session: Session, model_id: str, dataset_id: str) -> Experiment:
    """Found or created by the pair."""
    pair = select(Experiment).where(Experiment.model_id == model_id, Experiment.dataset_id == dataset_id)
    experiment = session.scalar(pair)
    if experiment is None:
        experiment = Experiment(model_id=model_id, dataset_id=dataset_id, goal={})
        session.add(experiment)
        session.flush()
    return experiment


def add(
    session: Session, experiment: Experiment, *, name: str, recipe: Mapping[str, Any], seed: int = 0
) -> Run:
    run = Run(experiment_id=experiment.id, name=name, recipe=dict(recipe), seed=seed)
    session.add(run)
    session.flush()
    return run


def save_stage(
    session: Session,
    run_id: str,
    stage: Mapping[str, Any],
    measurements: Iterable[Mapping[str, Any]],
    thresholds: Mapping[str, float] | None = None,
) -> Stage:
    """Keep a finished stage and its own variant; replaces what an earlier attempt kept for this index.

    Of the same file everything stays that was added since: analyses, other thresholds, numbers of machines
    with a name. stage: the columns of `Stage` but `id` and `run_id`. measurements: the columns of
    `Measurement`. thresholds: of its exits, if it has any.
    """
    row = session.scalar(select(Stage).where(Stage.run_id == run_id, Stage.index == stage["index"]))
    if row is not None and (row.key, row.file_sha256) != (stage["key"], stage["file_sha256"]):
        session.execute(delete(Stage).where(Stage.id == row.id))
        row = None
    if row is None:
        row = Stage(run_id=run_id, **stage, variants=[Variant()])
        session.add(row)
    for column, value in stage.items():
        setattr(row, column, value)
    row.own.thresholds = None if thresholds is None else dict(thresholds)
    before = [old for old in row.own.measurements if not (old.target or {}).get("name")]
    row.own.measurements += [Measurement(**measurement) for measurement in measurements]
    session.flush()  # first: a new number must have a higher id than any before it
    for old in before:
        row.own.measurements.remove(old)
    session.flush()
    return row


def add_measurements(session: Session, stage_id: str, measurements: Iterable[Mapping[str, Any]]) -> None:
    """Add numbers to a stage's own variant, e.g. latencies once all stages were timed side by side."""
    own = select(Variant).where(Variant.stage_id == stage_id, Variant.file_sha256.is_(None))
    variant = session.scalars(own).one()
    session.add_all(Measurement(variant_id=variant.id, **m) for m in measurements)


def all_of(session: Session) -> Sequence[Run]:
    """Newest first, with their experiment, model and dataset."""
    loaded = selectinload(Run.experiment)
    statement = select(Run).options(
        loaded.selectinload(Experiment.model), loaded.selectinload(Experiment.dataset)
    )
    return session.scalars(statement.order_by(Run.created_at.desc())).all()


def whole(session: Session, run_id: str) -> Run | None:
    """A run with stages, variants and measurements."""
    statement = (
        select(Run)
        .where(Run.id == run_id)
        .options(
            selectinload(Run.stages).selectinload(Stage.variants).selectinload(Variant.measurements),
            selectinload(Run.experiment).selectinload(Experiment.model),
            selectinload(Run.experiment).selectinload(Experiment.dataset),
        )
    )
    return session.scalar(statement)


def recent(session: Session, limit: int) -> Sequence[Run]:
    """Newest first, at most `limit`."""
    return session.scalars(select(Run).order_by(Run.created_at.desc()).limit(limit)).all()


def count(session: Session, experiment_id: str | None = None) -> int:
    """Runs of one experiment, or of all."""
    statement = select(func.count()).select_from(Run)
    if experiment_id is not None:
        statement = statement.where(Run.experiment_id == experiment_id)
    return session.scalar(statement) or 0


def experiments(session: Session) -> Sequence[Experiment]:
    """Newest first, with model and dataset."""
    loaded = (selectinload(Experiment.model), selectinload(Experiment.dataset))
    return session.scalars(select(Experiment).options(*loaded).order_by(Experiment.created_at.desc())).all()


def of_experiment(session: Session, experiment_id: str) -> Sequence[Run]:
    """Oldest first."""
    statement = select(Run).where(Run.experiment_id == experiment_id)
    return session.scalars(statement.order_by(Run.created_at)).all()


def warnings(session: Session, experiment_id: str) -> list[str]:
    """What speaks against the baseline, each sentence once: every run of an experiment starts from it."""
    found = session.scalars(select(Run.warnings).where(Run.experiment_id == experiment_id))
    return list(dict.fromkeys(sentence for sentences in found for sentence in sentences))


def baseline_stages(session: Session, experiment_ids: Iterable[str]) -> dict[str, Stage]:
    """By experiment the model as uploaded, of the oldest run that has got so far."""
    place = func.row_number().over(partition_by=Run.experiment_id, order_by=Run.created_at)
    own = select(Stage.id, Run.experiment_id, place.label("place")).join(Run)
    oldest = own.where(Run.experiment_id.in_(list(experiment_ids)), Stage.index == 0).subquery()
    statement = select(oldest.c.experiment_id, Stage).join(Stage, Stage.id == oldest.c.id)
    return {row[0]: row[1] for row in session.execute(statement.where(oldest.c.place == 1))}


def set_goal(session: Session, experiment_id: str, goal: Mapping[str, float]) -> None:
    """goal: max_drop_points, max_latency_ratio."""
    session.get_one(Experiment, experiment_id).goal = dict(goal)


def of_model(session: Session, model_id: str) -> Sequence[Run]:
    """Newest first, with their dataset."""
    statement = select(Run).join(Experiment).where(Experiment.model_id == model_id)
    statement = statement.options(selectinload(Run.experiment).selectinload(Experiment.dataset))
    return session.scalars(statement.order_by(Run.created_at.desc())).all()
