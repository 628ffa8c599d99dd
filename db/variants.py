"""What is said to the database about variants: the numbers that are compared and shown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Float, Select, Text, and_, case, cast, func, select
from sqlalchemy.orm import Session, selectinload

from db.models import Experiment, Measurement, Run, Stage, Variant

#: Of a variant these differ from runtime to runtime; accuracies of long ago have no target and count for all.
OWN = ("accuracy", "accuracy_low", "accuracy_high")
#: Numbers by the name they have in a comparison. Of accuracies the one that choices use.
PLAIN = {"accuracy": "accuracy", "size_bytes": "size", "parameters": "parameters", "macs": "macs"}
TIMED = ("latency_ratio", "latency_p50", "latency_mean")


def comparison(session: Session, experiment_id: str) -> list[dict[str, Any]]:
    """One row per variant and target, with what the chart needs; `target` is the target as JSON text.

    Where a runtime could not run the variant, `refused` is the JSON text of why, and there is no latency. The
    test split is not in it: no choice is made by it. Two grouped queries, since ten thousand variants as
    objects take seconds.
    """
    plain = {row["variant"]: row for row in _rows(session, _plain(experiment_id))}
    return [
        plain[row["variant"]]
        | {name: value for name, value in row.items() if value is not None or name not in OWN}
        for row in _rows(session, _timed(experiment_id))
        if row["variant"] in plain
        and any(row[name] is not None for name in ("ratio", "latency_ms", "refused"))
    ]


def newest_measurement(session: Session) -> int:
    """Its id; as long as it stays, so does every comparison."""
    return session.scalar(select(func.max(Measurement.id))) or 0


def methods(session: Session, experiment_id: str) -> list[tuple[str, int, str]]:
    """(run, index, method) of every stage but the first ones."""
    statement = select(Stage.run_id, Stage.index, Stage.method).join(Run)
    found = session.execute(statement.where(Run.experiment_id == experiment_id, Stage.method.is_not(None)))
    return [(run, index, method) for run, index, method in found if method is not None]


def last_numbers(session: Session, run_ids: Iterable[str]) -> dict[str, dict[str, float | None]]:
    """Validation accuracy and latency ratio of the last stage of each run that has them.

    Both of one target: the first that was measured.
    """
    statement = (
        select(Stage.run_id, Stage.index, Measurement.name, Measurement.value, Measurement.target)
        .join(Variant, Variant.stage_id == Stage.id)
        .join(Measurement, Measurement.variant_id == Variant.id)
        .where(
            Stage.run_id.in_(list(run_ids)),
            Variant.file_sha256.is_(None),
            Measurement.name.in_(("accuracy", "latency_ratio")),
            _for_choices(),
        )
        .order_by(Stage.index, Measurement.id)
    )
    stages: dict[tuple[str, int], list[tuple[str, float | None, Any]]] = {}
    for run, index, name, value, target in session.execute(statement):
        stages.setdefault((run, index), []).append((name, value, target))
    found: dict[str, dict[str, float | None]] = {}
    for (run, _), taken in stages.items():
        found.setdefault(run, {}).update(first_numbers(taken))
    return found


def first_numbers(taken: Sequence[tuple[str, float | None, Any]]) -> dict[str, float | None]:
    """By name the numbers of the first target that has a latency ratio; before one has, the first of all.

    taken: (name, value, target) in the order in which they were measured.
    """
    target = next((target for name, _, target in taken if name == "latency_ratio"), None)
    numbers: dict[str, float | None] = {}
    for name, value, where in taken:
        if target is None or where in (None, target):
            numbers.setdefault(name, value)
    return numbers


def whole(session: Session, variant_id: str) -> tuple[Variant, Stage, Run] | None:
    """A variant with its measurements, the stage and the run it came from."""
    statement = (
        select(Variant, Stage, Run)
        .join(Stage, Variant.stage_id == Stage.id)
        .join(Run, Stage.run_id == Run.id)
        .where(Variant.id == variant_id)
        .options(selectinload(Variant.measurements))
    )
    row = session.execute(statement).one_or_none()
    return None if row is None else (row[0], row[1], row[2])


def baseline_numbers(session: Session, experiment_id: str) -> dict[str, float | None]:
    """Measured numbers of the model as uploaded, by name; empty before its first run."""
    statement = (
        select(Measurement.name, Measurement.value)
        .join(Variant, Measurement.variant_id == Variant.id)
        .join(Stage, Variant.stage_id == Stage.id)
        .join(Run, Stage.run_id == Run.id)
        .where(Run.experiment_id == experiment_id, Stage.index == 0, _for_choices())
        .order_by(Measurement.id)
    )
    return {row.name: row.value for row in session.execute(statement)}


def stored(variant: Variant, stage: Stage, what: Literal["file", "answers", "exits"]) -> str | None:
    """SHA-256 of what belongs to a variant of this stage."""
    name = f"{what}_sha256"
    found: str | None = getattr(variant, name) or getattr(stage, name)
    return found


def with_exits(session: Session) -> Sequence[tuple[Variant, Stage, Run]]:
    """Every variant that stops early, newest run first; with the model and dataset of its experiment."""
    loaded = selectinload(Run.experiment)
    statement = (
        select(Variant, Stage, Run)
        .join(Stage, Variant.stage_id == Stage.id)
        .join(Run, Stage.run_id == Run.id)
        .where(Stage.exit_logits_sha256.is_not(None))
        .options(loaded.selectinload(Experiment.model), loaded.selectinload(Experiment.dataset))
        .order_by(Run.created_at.desc(), Stage.index, Variant.file_sha256.is_not(None), Variant.id)
    )
    return [(row[0], row[1], row[2]) for row in session.execute(statement)]


def of_run_with(session: Session, variant_id: str) -> Sequence[tuple[Variant, Stage, Run]]:
    """All variants of the run that this one belongs to, in the order of its stages."""
    run_id = select(Stage.run_id).join(Variant).where(Variant.id == variant_id).scalar_subquery()
    statement = (
        select(Variant, Stage, Run)
        .join(Stage, Variant.stage_id == Stage.id)
        .join(Run, Stage.run_id == Run.id)
        .where(Run.id == run_id)
        .order_by(Stage.index, Variant.file_sha256.is_not(None), Variant.id)
    )
    return [(row[0], row[1], row[2]) for row in session.execute(statement)]


def any_exits(session: Session) -> bool:
    found = select(Variant.id).join(Stage).where(Stage.exit_logits_sha256.is_not(None)).limit(1)
    return session.scalar(found) is not None


def at_thresholds(session: Session, stage_id: str, thresholds: Mapping[str, float]) -> Variant | None:
    """The variant of a stage that leaves at exactly these; while this is open nobody else adds one."""
    session.execute(select(Stage.id).where(Stage.id == stage_id).with_for_update())
    found = session.scalars(select(Variant).where(Variant.stage_id == stage_id))
    return next((variant for variant in found if variant.thresholds == thresholds), None)


def add(
    session: Session, stage_id: str, columns: Mapping[str, Any], measurements: Iterable[Mapping[str, Any]]
) -> Variant:
    """Keep a stage with other thresholds. columns: of `Variant`; measurements: columns of `Measurement`."""
    taken = [Measurement(**measurement) for measurement in measurements]
    variant = Variant(stage_id=stage_id, measurements=taken, **columns)
    session.add(variant)
    session.flush()
    return variant


def measured(session: Session, variant_id: str, measurements: Sequence[Mapping[str, Any]]) -> None:
    """Add numbers of a variant; they replace what was taken on the same targets before."""
    variant = session.get_one(Variant, variant_id)
    targets = [measurement["target"] for measurement in measurements]
    before = [old for old in variant.measurements if old.target in targets]
    variant.measurements += [Measurement(**measurement) for measurement in measurements]
    session.flush()  # first: a new number must have a higher id than any before (`newest_measurement`)
    for old in before:
        session.delete(old)


def _for_choices() -> ColumnElement[bool]:
    return func.coalesce(Measurement.split, "validation") == "validation"


def _rows(session: Session, statement: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(row) for row in session.execute(statement).mappings()]


def _picked(column: Any, name: str) -> ColumnElement[float | None]:
    """Long form to wide: the value of one name among the rows of a group."""
    return func.max(case((Measurement.name == name, cast(column, Float))))


def _plain(experiment_id: str) -> Select[*tuple[Any, ...]]:
    numbers = [_picked(Measurement.value, name).label(label) for label, name in PLAIN.items()]
    statement: Select[*tuple[Any, ...]] = (
        select(
            Variant.id.label("variant"),
            Run.id.label("run"),
            Run.name,
            Stage.index,
            *numbers,
            _picked(Measurement.low, "accuracy").label("accuracy_low"),
            _picked(Measurement.high, "accuracy").label("accuracy_high"),
            func.max(case((Stage.exits_sha256.is_not(None), 1), else_=0)).label("exits"),
            # As text: PostgreSQL compares no JSON.
            func.max(case((Variant.file_sha256.is_not(None), cast(Variant.thresholds, Text)))).label("moved"),
        )
        .join_from(Run, Stage, Stage.run_id == Run.id)
        .join(Variant, Variant.stage_id == Stage.id)
        .join(Measurement, and_(Measurement.variant_id == Variant.id, _for_choices()))
        .where(Run.experiment_id == experiment_id)
        .group_by(Variant.id, Run.id, Run.name, Stage.index, Run.created_at)
        .order_by(Run.created_at, Stage.index)
    )
    return statement


def _timed(experiment_id: str) -> Select[*tuple[Any, ...]]:
    target = cast(Measurement.target, Text)
    kinds = (("", Measurement.value), ("_low", Measurement.low), ("_high", Measurement.high))
    numbers = [
        _picked(column, name).label(f"{label}{end}")
        for name, label in (("accuracy", "accuracy"), ("latency_ratio", "ratio"))
        for end, column in kinds
    ]
    # With exits the median tells little: one half may take a fifth of the time of the other.
    mean = _picked(Measurement.value, "latency_mean")
    for end, column in kinds:
        instead = _picked(column, "latency_mean")
        median = _picked(column, "latency_p50")
        numbers.append(case((mean.is_not(None), instead), else_=median).label(f"latency{end or '_ms'}"))
    marks, told = cast(Measurement.marks, Text), Measurement.value.is_not(None)
    texts = (
        func.max(case((and_(Measurement.name == "latency_ratio", told), marks))).label("marks"),
        func.max(case((and_(Measurement.name == "latency_p50", ~told), marks))).label("refused"),
    )
    statement: Select[*tuple[Any, ...]] = (
        select(Variant.id.label("variant"), target.label("target"), *texts, *numbers)
        .join_from(Run, Stage, Stage.run_id == Run.id)
        .join(Variant, Variant.stage_id == Stage.id)
        .join(Measurement, Measurement.variant_id == Variant.id)
        .where(
            Run.experiment_id == experiment_id,
            Measurement.name.in_(("accuracy", *TIMED)),
            _for_choices(),
        )
        .group_by(Variant.id, target)
    )
    return statement
