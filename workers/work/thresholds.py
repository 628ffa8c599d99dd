"""Kind `thresholds`: a file with exits gets other thresholds, and becomes a variant of its stage."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import variants
from db.artifacts import Artifacts
from db.models import Stage, Variant
from workers.assignment import Assignment
from workers.base import Bench, Measurement, Progress
from workers.calibration.calibrate import LOGITS, REPORT, ExitsReport, write_report
from workers.calibration.checking import check_on_validation, said_before
from workers.calibration.moving import KeptExits, read_kept
from workers.calibration.path_times import PathTimes, time_stream
from workers.data import ImageData
from workers.deploy.exit_parity import ExitParity
from workers.deploy.one_file import set_thresholds
from workers.errors import StepFailed
from workers.host import host_facts
from workers.measures.accuracy import SPLITS, answers_file, keep_answers
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.work.files import data_of, placed, point_of
from workers.work.rows import columns_of, threshold_columns

log = logging.getLogger(__name__)


def do(assignment: Assignment) -> None:
    """subject_id: the stage. request: {"variant": one of its variants, "thresholds": one per exit}."""
    request = assignment.job.request
    variant, stage, run = point_of(assignment, request["variant"])
    if stage.exit_logits_sha256 is None:
        raise StepFailed("thresholds", "the point has no exits.", "Choose another one.")
    thresholds = tuple(threshold_columns(request["thresholds"]).values())
    kept, file = _kept(assignment, stage), placed(assignment, stage.file_sha256, "model.onnx")
    set_thresholds(file, thresholds)
    assignment.tell("Reading the dataset", share=0.2)
    data = data_of(assignment, run)
    parity, told = _check(assignment, kept, file, data, thresholds)
    times = _stream(assignment, kept, file, data)
    _save(assignment, variant, stage, kept, kept.moved(thresholds, parity, times, told))


def _kept(assignment: Assignment, stage: Stage) -> KeptExits:
    assert stage.exits_sha256 is not None
    assert stage.exit_logits_sha256 is not None
    return read_kept(
        placed(assignment, stage.exits_sha256, REPORT), placed(assignment, stage.exit_logits_sha256, LOGITS)
    )


def _check(
    assignment: Assignment, kept: KeptExits, file: Path, data: ImageData, thresholds: Sequence[float]
) -> tuple[ExitParity, tuple[str, ...]]:
    """The file's exits against those that follow from the kept logits. Raises GateFailed."""
    clear = kept.clear_of(thresholds)
    plan = kept.plan.model_copy(update={"thresholds": tuple(thresholds)})
    batches = said_before(kept.logits["validation"], data, clear)
    return check_on_validation(file, plan, batches, int(clear.sum()), _telling(assignment, 0.2, 0.7))


def _stream(assignment: Assignment, kept: KeptExits, file: Path, data: ImageData) -> PathTimes | None:
    """Of real samples through the file; None where its path times were taken somewhere else."""
    target = kept.report.target
    if (target.host, target.version) != (host_facts().host, OnnxRuntime.version()):
        return None
    bench = Bench(data, OnnxRuntime(), target, _telling(assignment, 0.7, 1.0))
    return time_stream(file, len(kept.report.cuts), kept.plan, bench)


def _telling(assignment: Assignment, start: float, end: float) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        assignment.tell(progress.text, share=start + (end - start) * progress.share)

    return tell


def _save(
    assignment: Assignment,
    variant: Variant,
    stage: Stage,
    kept: KeptExits,
    moved: ExitsReport,
) -> None:
    folder, store = assignment.folder, Artifacts(assignment.settings.artifacts)
    named = threshold_columns(moved.thresholds)
    write_report(moved, folder / REPORT)
    answers = {split: kept.given(split, moved.thresholds) for split in SPLITS}
    answered = answers_file(folder / "model.onnx", kept.report.target)
    keep_answers(answered, answers, kept.labels)
    columns = {
        "thresholds": named,
        "file_sha256": store.add(folder / "model.onnx"),
        "answers_sha256": store.add(answered),
        "exits_sha256": store.add(folder / REPORT),
        "parity": moved.parity.plain.model_dump(mode="json"),
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
