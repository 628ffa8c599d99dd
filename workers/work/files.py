"""Files of the store, under the names that their readers expect."""

import os
import shutil
from pathlib import Path

from db.artifacts import Artifacts
from db.models import Dataset as Row
from workers.assignment import Assignment
from workers.data import Dataset, open_dataset
from workers.errors import DatasetRefused


def placed(assignment: Assignment, sha256: str, name: str) -> Path:
    """The stored file as `name` in the job's folder; readers look at names, the store has none."""
    place = assignment.folder / (Path(name).name or "file")
    source = Artifacts(assignment.settings.artifacts).path(sha256)
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:  # another disk, or one that has no hard links
        shutil.copyfile(source, place)
    return place


def open_data(assignment: Assignment, row: Row) -> Dataset:
    """The dataset of a row: an upload, or one known by its word."""
    cache = assignment.settings.data / "datasets"
    if row.upload_sha256 is None:
        if Path(row.source).name != row.source:  # a path of this machine is nobody's to ask for
            raise DatasetRefused(row.name, "is not a known dataset.", "Upload a .zip or an .npz.")
        return open_dataset(row.source, cache=cache, seed=row.seed)
    return open_dataset(placed(assignment, row.upload_sha256, row.source), cache=cache, seed=row.seed)
