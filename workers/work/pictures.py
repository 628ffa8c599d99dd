"""Pictures of samples as small files of the store, for the pages."""

import io
import zipfile

import numpy as np
from PIL import Image, ImageOps
from sqlalchemy.orm import Session

from db.artifacts import Artifacts
from db.models import Dataset as Row
from db.session import reading
from workers.assignment import Assignment
from workers.data import Dataset
from workers.turns import training_turn

#: Name in a dataset's facts: a zip with `0`, `1` … for the samples of validation, in their order.
FACT = "validation_pictures"
SIDE, MOST = 64, 20_000


def keep_pictures(assignment: Assignment, dataset_id: str, dataset: Dataset) -> None:
    """Store the validation samples as squares of at most SIDE pixels, once per dataset."""
    store = Artifacts(assignment.settings.artifacts)
    with reading(assignment.settings.database) as session:
        if FACT in (session.get_one(Row, dataset_id).facts or {}):
            return
    file = store.temporary()
    chosen = dataset.splits["validation"][:MOST]
    with zipfile.ZipFile(file, "w") as archive:
        for first in range(0, len(chosen), 256):
            with training_turn():  # not timed, but it would disturb another job's timing
                for place, index in enumerate(chosen[first : first + 256], start=first):
                    archive.writestr(str(place), _small(dataset, index))
    sha256 = store.add(file)
    file.unlink()

    def keep(session: Session) -> None:
        row = session.get_one(Row, dataset_id)
        row.facts = {**(row.facts or {}), FACT: sha256}

    assignment.write(keep)


def _small(dataset: Dataset, index: np.integer) -> bytes:
    picture = dataset.pictures[int(index)].convert("L" if dataset.channels == 1 else "RGB")
    side = min(SIDE, *picture.size)
    written = io.BytesIO()
    ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS).save(
        written, "PNG" if dataset.channels == 1 else "JPEG"
    )
    return written.getvalue()


def specimens(labels: np.ndarray, count: int) -> np.ndarray:
    """Places of that many samples, the first of every class before the second of any.

    labels: (N,) int64, in the order in which samples are taken.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    round_of = np.empty(len(labels), dtype=np.int64)
    round_of[order] = np.arange(len(labels)) - starts
    places: np.ndarray = np.lexsort((labels, round_of))[:count]
    return places
