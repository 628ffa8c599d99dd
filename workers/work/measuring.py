"""Kind `measure`: a finished run is measured on this machine, which may share nothing but the database."""

from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from db import runs, variants
from db.models import Run, Variant
from db.models import Stage as StageRow
from db.session import reading
from workers.assignment import Assignment
from workers.base import Candidate, ModelSpec, Progress
from workers.calibration.calibrate import REPORT
from workers.calibration.moving import KeptExits, read_report
from workers.data import Dataset
from workers.errors import DatasetRefused, StepFailed
from workers.measuring import Measuring
from workers.places import USUAL, choose
from workers.stages import Stage, Store, code_sha256
from workers.work.files import open_data, placed, prepared
from workers.work.rows import columns_of


def do(assignment: Assignment) -> None:
    """subject_id: the run. request: {"target": the name of this machine, "runtime": as of kind `run`}.

    Everything the run came to is timed in one session with its baseline; numbers of an earlier measurement
    in the same place are replaced.
    """
    request, settings = assignment.job.request, assignment.settings
    choice = choose(request.get("runtime", USUAL), settings.threads, request["target"])
    with reading(settings.database) as session:
        row = runs.whole(session, assignment.job.subject_id)
    if row is None or not row.stages:
        raise StepFailed("measure", "the run is no longer there, or has no stage yet.", "Choose another one.")
    spec = ModelSpec.model_validate(row.experiment.model.spec)
    assignment.tell("Fetching and reading the dataset")
    data = prepared(assignment, _data(assignment, row), spec)
    assignment.tell("Fetching the exported files")
    whole = any(place.runtime.whole_models_only for place in choice.places)
    store = Store(settings.data / "measured" / code_sha256()[:16])  # other code, other numbers
    pairs = [(stage, variant) for stage in row.stages for variant in stage.variants]
    tell = [partial(_tell, assignment, index, len(pairs) + 1) for index in range(len(pairs) + 1)]
    stages = [_stage(assignment, store, stage, variant, whole) for stage, variant in pairs]
    measuring = Measuring(choice, data, store, partial(_candidate, spec))
    stages = [measuring.in_places(stage, told) for stage, told in zip(stages, tell, strict=False)]
    stages = measuring.together(stages, tell[-1])

    def keep(session: Session) -> None:
        for (_, variant), stage in zip(pairs, stages, strict=True):
            variants.measured(session, variant.id, [columns_of(m) for m in stage.measurements])

    assignment.write(keep)


def _data(assignment: Assignment, run: Run) -> Dataset:
    """The dataset, if it is the one that the run was made with."""
    row = run.experiment.dataset
    dataset = open_data(assignment, row)
    if dataset.sha256 != row.sha256:
        raise DatasetRefused(
            row.name, "has other contents on this machine than where the run was made.",
            "Upload it as a file; uploads are fetched and checked.",
        )  # fmt: skip
    return dataset


def _stage(assignment: Assignment, store: Store, row: StageRow, variant: Variant, whole: bool) -> Stage:
    """The stage with its files, kept here for the next measurement. whole: its `.pt2` is needed too."""
    sha256 = variants.stored(variant, row, "file")
    assert sha256 is not None
    key = f"{row.key}-{sha256[:16]}"  # a stage that is done anew has its key again, and may be another file
    folder = store.folder / key
    folder.mkdir(parents=True, exist_ok=True)
    file = placed(assignment, sha256, "model.onnx", folder)
    if whole:
        _kept(assignment, row.archive_sha256, folder / "model.pt2")
    report = _kept(assignment, variants.stored(variant, row, "exits"), folder / REPORT)
    return Stage(
        index=row.index,
        method=row.method,
        settings=row.settings,
        key=key,
        file=file,
        seconds=row.seconds,
        cached=True,
        notes=(),
        parity=None,
        exits=None if report is None else KeptExits(read_report(report), {}, {}).plan,
    )


def _kept(assignment: Assignment, sha256: str | None, place: Path) -> Path | None:
    return None if sha256 is None else placed(assignment, sha256, place.name, place.parent)


def _candidate(spec: ModelSpec, stage: Stage) -> Candidate:
    """What measures that depend on the place look at: the file, and whether it stops early."""
    return Candidate(spec, onnx=stage.file, exits=stage.exits)


def _tell(assignment: Assignment, index: int, count: int, progress: Progress) -> None:
    assignment.tell(progress.text, stage=index, share=min((index + progress.share) / count, 0.99))
