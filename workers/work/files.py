"""Files of the store, under the names that their readers expect."""

import os
import shutil
import uuid
from pathlib import Path

from db import variants
from db.models import Dataset as Row
from db.models import Model, Run, Stage, Variant
from db.session import reading
from workers.assignment import Assignment
from workers.base import Candidate, ModelSpec
from workers.data import Dataset, ImageData, open_dataset
from workers.errors import DatasetRefused, ParedownError, StepFailed
from workers.graph.importing import open_model
from workers.work.fetching import stored


def placed(assignment: Assignment, sha256: str, name: str, folder: Path | None = None) -> Path:
    """The stored file as `name` in the job's folder; readers look at names, the store has none.

    folder: another one, that stays. The file is there whole or not at all.
    """
    place = (folder or assignment.folder) / (Path(name).name or "file")
    source, partial = stored(assignment, sha256), place.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        os.link(source, partial)
    except OSError:  # another disk, or one that has no hard links
        shutil.copyfile(source, partial)
    partial.replace(place)
    partial.unlink(missing_ok=True)  # a link is not moved onto another one to the same file
    return place


def open_data(assignment: Assignment, row: Row) -> Dataset:
    """The dataset of a row: an upload, or one known by its word."""
    cache = assignment.settings.data / "datasets"
    if row.upload_sha256 is None:
        if Path(row.source).name != row.source:  # a path of this machine is nobody's to ask for
            raise DatasetRefused(row.name, "is not a known dataset.", "Upload a .zip or an .npz.")
        return open_dataset(row.source, cache=cache, seed=row.seed)
    return open_dataset(placed(assignment, row.upload_sha256, row.source), cache=cache, seed=row.seed)


def point_of(assignment: Assignment, variant_id: str) -> tuple[Variant, Stage, Run]:
    """The point that a request names. Raises StepFailed."""
    with reading(assignment.settings.database) as session:
        found = variants.whole(session, variant_id)
    if found is None:
        raise StepFailed(assignment.job.kind, "the point is no longer there.", "Choose another one.")
    return found


def prepared(assignment: Assignment, dataset: Dataset, spec: ModelSpec) -> ImageData:
    """As the model takes it; decoded pictures are kept for the next job."""
    return dataset.prepare(spec.preprocessing, assignment.settings.data / "datasets")


def data_of(assignment: Assignment, run: Run) -> ImageData:
    """What a run was made with, as its model takes it."""
    with reading(assignment.settings.database) as session:
        experiment = session.get_one(Run, run.id).experiment
        model, dataset = experiment.model, experiment.dataset
    return prepared(assignment, open_data(assignment, dataset), ModelSpec.model_validate(model.spec))


def open_model_of(assignment: Assignment, model: Model) -> Candidate:
    """Raises ParedownError for a model that was not checked."""
    if model.file_sha256 is None or model.file_name is None:
        raise ParedownError(model.name, "has not been checked yet, or was refused.", "See the page Models.")
    file = placed(assignment, model.file_sha256, f"{model.id}{Path(model.file_name).suffix}")
    return open_model(file, ModelSpec.model_validate(model.spec))
