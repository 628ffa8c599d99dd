"""Kind `thresholds`: a file with exits gets other thresholds, and becomes a variant of its stage."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from db import variants
from db.artifacts import Artifacts
from db.models import Run, Stage, Variant
from workers.assignment import Assignment
from workers.base import Measurement
from workers.calibration.calibrate import BATCH_SIZE, GATE_SAMPLES, LOGITS, REPORT, write_report
from workers.calibration.moving import KeptExits, read_kept
from workers.deploy.exit_parity import ExitParity, check_exits
from workers.deploy.one_file import set_thresholds
from workers.errors import StepFailed
from workers.measures.accuracy import SPLITS, answers_file, keep_answers
from workers.work.files import data_of, placed, point_of
from workers.work.rows import columns_of, threshold_columns

log = logging.getLogger(__name__)


def do(assignment: Assignment) -> None:
    """subject_id: the stage. request: {"variant": one of its variants, "thresholds": one per exit}."""
    request = assignment.job.request
    variant, stage, run = point_of(assignment, request["variant"])
    if stage.exit_logits_sha256 is None:
        raise StepFailed("thresholds", "the point has no exits.", "Choose another one.")
    named = threshold_columns(request["thresholds"])
    thresholds = tuple(named.values())
    kept, file = _kept(assignment, stage), placed(assignment, stage.file_sha256, "model.onnx")
    set_thresholds(file, thresholds)
    assignment.tell("Reading the dataset", share=0.2)
    inputs = _inputs(assignment, run)
    assignment.tell("Comparing the exits that samples take", share=0.6)
    parity = _check(kept, file, inputs, thresholds)
    _save(assignment, variant, stage, kept, named, parity)


def _kept(assignment: Assignment, stage: Stage) -> KeptExits:
    assert stage.exits_sha256 is not None
    assert stage.exit_logits_sha256 is not None
    return read_kept(
        placed(assignment, stage.exits_sha256, REPORT), placed(assignment, stage.exit_logits_sha256, LOGITS)
    )


def _inputs(assignment: Assignment, run: Run) -> np.ndarray:
    """The first samples of validation, as the model takes them."""
    data = data_of(assignment, run)
    batches = itertools.islice(data.batches("validation", BATCH_SIZE), GATE_SAMPLES // BATCH_SIZE)
    return np.concatenate([inputs.numpy() for inputs, _ in batches])


def _check(kept: KeptExits, file: Path, inputs: np.ndarray, thresholds: Sequence[float]) -> ExitParity:
    """The file's exits against those that follow from the kept logits. Raises GateFailed."""
    clear = kept.clear_of(thresholds)[: len(inputs)]
    plan = kept.plan.model_copy(update={"thresholds": tuple(thresholds)})
    logits = kept.logits["validation"][: len(inputs)][clear].astype(np.float32)
    return check_exits(file, inputs[clear], logits, plan)


def _save(
    assignment: Assignment,
    variant: Variant,
    stage: Stage,
    kept: KeptExits,
    named: dict[str, float],
    parity: ExitParity,
) -> None:
    folder, store = assignment.folder, Artifacts(assignment.settings.artifacts)
    moved = kept.moved(tuple(named.values()), parity)
    write_report(moved, folder / REPORT)
    answers = {split: kept.given(split, moved.thresholds) for split in SPLITS}
    answered = answers_file(folder / "model.onnx", kept.report.target)
    keep_answers(answered, answers, kept.labels)
    columns = {
        "thresholds": named,
        "file_sha256": store.add(folder / "model.onnx"),
        "answers_sha256": store.add(answered),
        "exits_sha256": store.add(folder / REPORT),
        "parity": parity.plain.model_dump(mode="json"),
    }
    numbers = [*map(columns_of, kept.measurements(moved)), *_unchanged(variant)]

    def change(session: Session) -> None:
        if variants.at_thresholds(session, stage.id, named) is None:
            variants.add(session, stage.id, columns, numbers)
        else:
            log.info("There is a point with these thresholds already.")

    assignment.write(change)


def _unchanged(variant: Variant) -> list[dict[str, Any]]:
    """What no threshold changes: numbers of neither samples nor a target, such as the size."""
    return [
        {name: getattr(measurement, name) for name in Measurement.model_fields}
        for measurement in variant.measurements
        if measurement.split is None and measurement.target is None
    ]
