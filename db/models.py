"""The tables. Every noun carries `project_id` and `created_by` from the start, so that teams come without a
rewrite; until then there is one project and one person.

Ids are random hex strings: rows of several databases can be put together, and an id in a link tells nothing.
Times are seconds since 1970 (UTC), which both databases store and compare alike.
"""

import time
import uuid
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

DEFAULT_PROJECT, DEFAULT_PERSON = "default", "local"

#: How a job stands. queued -> running -> done | failed | cancelled; an expired lease leads back to queued.
STATES = ("queued", "running", "done", "failed", "cancelled")
ENDED = ("done", "failed", "cancelled")


def new_id() -> str:
    return uuid.uuid4().hex


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy
        dict[str, Any]: JSON,
        list[str]: JSON,
        str: String(200),
    }


class Project(Base):
    __tablename__ = "project"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class Person(Base):
    __tablename__ = "person"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class Noun:
    """What every noun of a project has."""

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), default=DEFAULT_PROJECT, index=True)
    created_by: Mapped[str] = mapped_column(ForeignKey("person.id"), default=DEFAULT_PERSON)
    created_at: Mapped[float] = mapped_column(default=time.time)


class Job(Noun, Base):
    """Anything a worker does.

    subject_id: the model, dataset or run that it is for. request: what it was asked, as JSON.
    attempt: rises with every claim; a write that carries an older one changes nothing.
    losses: workers lost since the job last got on (a new epoch, a new stage).
    lease_until: by the database's clock; after it the worker counts as lost.
    error: {"where", "what", "fix"} for the screen; the traceback is in the log.
    """

    __tablename__ = "job"
    kind: Mapped[str]
    subject_id: Mapped[str] = mapped_column(index=True)
    request: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(default="queued", index=True)
    queue: Mapped[str] = mapped_column(default="cpu")
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_until: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    worker: Mapped[str | None]
    stage: Mapped[int] = mapped_column(default=0)
    share: Mapped[float] = mapped_column(default=0.0)
    text: Mapped[str] = mapped_column(Text, default="")
    error: Mapped[dict[str, Any] | None]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]


class Worker(Base):
    """A worker process that has been seen; online while `seen_at` is fresh."""

    __tablename__ = "worker"
    id: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]]
    device: Mapped[str]
    facts: Mapped[dict[str, Any]]
    seen_at: Mapped[float]


class Model(Noun, Base):
    """What a user brings. spec and file_sha256 are there once the import job is done.

    upload_sha256: the file as uploaded. file_sha256: the canonical file. facts: layers, sizes, parity.
    """

    __tablename__ = "model"
    name: Mapped[str]
    upload_sha256: Mapped[str]
    file_sha256: Mapped[str | None]
    file_name: Mapped[str | None]
    spec: Mapped[dict[str, Any] | None]
    facts: Mapped[dict[str, Any] | None]


class Dataset(Noun, Base):
    """Labelled samples. source: an uploaded file's name, or one of the known words.

    sha256: of contents and splits. facts: classes with counts, splits, sizes, what was found and done.
    """

    __tablename__ = "dataset"
    name: Mapped[str]
    source: Mapped[str]
    upload_sha256: Mapped[str | None]
    seed: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[str | None]
    facts: Mapped[dict[str, Any] | None]


class Experiment(Noun, Base):
    """The runs of one model on one dataset. goal: {"max_drop_points", "max_latency_ratio"}, editable."""

    __tablename__ = "experiment"
    __table_args__ = (UniqueConstraint("model_id", "dataset_id"),)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"))
    goal: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model: Mapped[Model] = relationship()
    dataset: Mapped[Dataset] = relationship()


class Run(Noun, Base):
    """One recipe applied to one model and dataset; the baseline is the run with no steps."""

    __tablename__ = "run"
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiment.id"), index=True)
    name: Mapped[str]
    recipe: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(default=0)
    warnings: Mapped[list[str]] = mapped_column(default=list)
    experiment: Mapped[Experiment] = relationship()
    stages: Mapped[list["Stage"]] = relationship(order_by="Stage.index", cascade="all, delete-orphan")


class Stage(Base):
    """One step as it was carried out; index 0 is the model as uploaded.

    parity: {"samples", "logit_error", "same_answer"}, how the file compared with what it was made from; None
    for an ONNX upload, which there is nothing to compare with, and for stages of before this was kept.
    answers_sha256: an .npz with the file's answer to every sample of validation and test, and the labels.
    exits_sha256, exit_logits_sha256: for a file with early exits its `exits.json`, and an .npz with what
    every exit says to those samples.
    """

    __tablename__ = "stage"
    __table_args__ = (UniqueConstraint("run_id", "index"),)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    index: Mapped[int]
    method: Mapped[str | None]
    settings: Mapped[dict[str, Any]]
    key: Mapped[str]
    seconds: Mapped[float]
    cached: Mapped[bool]
    notes: Mapped[list[str]]
    parity: Mapped[dict[str, Any] | None]
    file_sha256: Mapped[str]
    archive_sha256: Mapped[str | None]
    answers_sha256: Mapped[str | None]
    exits_sha256: Mapped[str | None]
    exit_logits_sha256: Mapped[str | None]
    variants: Mapped[list["Variant"]] = relationship(cascade="all, delete-orphan")

    @property
    def own(self) -> "Variant":
        """As the stage came out, not one with other thresholds."""
        return next(variant for variant in self.variants if variant.file_sha256 is None)


class Variant(Base):
    """What can be compared, shown, shared and exported: a stage with its exit thresholds, if it has exits.

    thresholds: {"exit_1": …}. file_sha256, answers_sha256, exits_sha256, parity: of thresholds that were set
    later; None where they are those of the stage.
    """

    __tablename__ = "variant"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    stage_id: Mapped[str] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), index=True)
    thresholds: Mapped[dict[str, Any] | None]
    file_sha256: Mapped[str | None]
    answers_sha256: Mapped[str | None]
    exits_sha256: Mapped[str | None]
    parity: Mapped[dict[str, Any] | None]
    measurements: Mapped[list["Measurement"]] = relationship(cascade="all, delete-orphan")


class Measurement(Base):
    """One number, long form: a new measure needs no migration. target: {} where none applies."""

    __tablename__ = "measurement"
    __table_args__ = (Index("ix_measurement_variant_name", "variant_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id", ondelete="CASCADE"))
    name: Mapped[str]
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    unit: Mapped[str]
    better: Mapped[str]
    split: Mapped[str | None]
    samples: Mapped[int | None]
    target: Mapped[dict[str, Any] | None]
    marks: Mapped[list[str]] = mapped_column(default=list)


class Analysis(Noun, Base):
    """What a job found out about a stage's file beyond its numbers, such as where its time goes; or, where
    there need be no run yet, about a model as uploaded.

    key: hash of what the document depends on (file, target, settings, code): asked again, it is found.
    """

    __tablename__ = "analysis"
    __table_args__ = (UniqueConstraint("kind", "key"),)
    kind: Mapped[str]
    key: Mapped[str]
    stage_id: Mapped[str | None] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), index=True)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), index=True)
    target: Mapped[dict[str, Any]]
    document: Mapped[dict[str, Any]]


class Point(Base):
    """One point of a run's curves: an epoch of a stage. values: {"loss": …, "accuracy": …}."""

    __tablename__ = "point"
    __table_args__ = (UniqueConstraint("job_id", "stage", "epoch"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    stage: Mapped[int]
    epoch: Mapped[int]
    values: Mapped[dict[str, Any]]


class Predictor(Noun, Base):
    """What forms guess the latency of a model's recipes from.

    code: of the workers; other code builds anew. target: name of the machine that it is about; empty for the
    one that does runs. key: of all that the table depends on; equal ones have equal tables. table: None until
    it is built.
    """

    __tablename__ = "predictor"
    __table_args__ = (UniqueConstraint("model_id", "code", "target"),)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"))
    code: Mapped[str]
    target: Mapped[str] = mapped_column(default="", server_default="")
    key: Mapped[str | None] = mapped_column(index=True)
    table: Mapped[dict[str, Any] | None]
