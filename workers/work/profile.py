"""Kind `profile`: where the time of a variant's file goes, beside that of another one."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from db import analyses, variants
from db.models import Run, new_id
from db.session import reading
from workers.assignment import Assignment
from workers.base import Bench, Progress, Target
from workers.host import host_facts
from workers.profiling.peaks import Peaks, measure_peaks
from workers.profiling.profile import profile
from workers.profiling.recording import THREADS
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.stages import key_of
from workers.work.files import data_of, placed, point_of
from workers.writing import written_whole

KIND = "profile"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    """A stage's file, and the key of what is found out about it beside the others."""

    stage: str
    sha256: str
    key: str


def do(assignment: Assignment) -> None:
    """subject_id: the stage. request: {"variants": one of the stage, and those to profile beside it,
    "again": true to do it although nothing has changed}."""
    request, target = assignment.job.request, _target()
    run, wanted = _wanted(assignment, request["variants"], target)
    if not request.get("again") and _all_there(assignment, wanted):
        log.info("All of these were profiled side by side, and nothing has changed since.")
        return
    assignment.tell("Reading the dataset")
    bench = _bench(assignment, run, target)
    assignment.tell("Measuring what this machine can do at most", share=0.2)
    peaks = _peaks(assignment.settings.data / "peaks", target)
    different = dict.fromkeys(each.sha256 for each in wanted)  # equal files are recorded once
    files = [placed(assignment, sha256, f"{number}.onnx") for number, sha256 in enumerate(different)]
    profiles = dict(zip(different, profile(files, bench, peaks), strict=True))
    shared = {"session": new_id()}

    def change(session: Session) -> None:
        told = target.model_dump(mode="json")
        for each in wanted:
            found = profiles[each.sha256].model_dump(mode="json")
            document = {**shared, "file_sha256": each.sha256, **found}
            analyses.save(session, KIND, each.key, stage_id=each.stage, target=told, document=document)

    assignment.tell("Done", share=1.0)
    assignment.write(change)


def _wanted(assignment: Assignment, ids: list[str], target: Target) -> tuple[Run, list[_Wanted]]:
    """And the run of the first variant, for its data."""
    points = [point_of(assignment, name) for name in ids]
    files = {(stage.id, variants.stored(variant, stage, "file")): None for variant, stage, _ in points}
    together = sorted(str(sha256) for _, sha256 in files)  # beside another file, other times were taken
    told = target.model_dump(mode="json")
    wanted = [_Wanted(stage, str(sha256), key_of(stage, sha256, together, told)) for stage, sha256 in files]
    return points[0][2], wanted


def _all_there(assignment: Assignment, wanted: list[_Wanted]) -> bool:
    """Profiled in one session, so that they compare."""
    with reading(assignment.settings.database) as session:
        rows = [analyses.find(session, KIND, each.key) for each in wanted]
        sessions = {row.document["session"] for row in rows if row is not None}
    return None not in rows and len(sessions) == 1


def _target() -> Target:
    """Only ONNX Runtime on the processor says what each of its operators takes."""
    return Target(
        host=host_facts().host, runtime=OnnxRuntime.id(), version=OnnxRuntime.version(), threads=THREADS
    )


def _bench(assignment: Assignment, run: Run, target: Target) -> Bench:
    def tell(progress: Progress) -> None:
        assignment.tell(progress.text.capitalize(), share=0.3 + 0.65 * progress.share)

    return Bench(data_of(assignment, run), OnnxRuntime(), target, tell)


def _peaks(folder: Path, target: Target) -> Peaks:
    """The best that was ever seen of this machine and version of the runtime."""
    file = folder / f"{target.host}-{target.version}.json"
    peaks = measure_peaks()
    with suppress(OSError, ValueError):
        peaks = peaks.best(Peaks.model_validate_json(file.read_text()))
    with written_whole(file) as partial:
        partial.write_text(peaks.model_dump_json())
    return peaks
