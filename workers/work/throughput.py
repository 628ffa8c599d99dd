"""Kind `throughput`: how many samples per second a variant's file answers, as a grid."""

import numpy as np

from db import analyses, variants
from workers.assignment import Assignment
from workers.base import Bench, Progress
from workers.host import logical_cores
from workers.measures.latency import real_samples
from workers.places import USUAL, choose
from workers.stages import key_of
from workers.throughput.search import measure_grid
from workers.work.files import data_of, placed, point_of

KIND = "throughput"
#: More than the largest batch, so that batches differ.
MAX_SAMPLES, READ_AT_ONCE = 256, 32
TOGETHER = "The file has early exits: a batch leaves early only when all of its samples are sure."


def do(assignment: Assignment) -> None:
    """subject_id: the stage. request: {"variant": one of its variants, "seconds": the budget}."""
    request = assignment.job.request
    variant, stage, run = point_of(assignment, request["variant"])
    seconds, sha256 = float(request["seconds"]), variants.stored(variant, stage, "file")
    assert sha256 is not None
    place, cores = choose(USUAL, assignment.settings.threads).steps, logical_cores()
    target = place.target.model_dump(mode="json", exclude={"threads", "batch"})
    key = key_of(stage.id, sha256, target, cores, seconds)

    def tell(progress: Progress) -> None:
        assignment.tell(f"Measuring {progress.text}", share=progress.share)

    assignment.tell("Reading the dataset")
    together = place.target.model_copy(update={"batch": READ_AT_ONCE})
    batches = real_samples(Bench(data_of(assignment, run), place.runtime, together, tell), seed=0)
    samples = np.concatenate(batches)[:MAX_SAMPLES]
    file = placed(assignment, sha256, "model.onnx")
    grid = measure_grid(place.runtime, file, samples, cores=cores, seconds=seconds, tell=tell)
    if stage.exits_sha256 is not None:
        grid = grid.model_copy(update={"notes": (TOGETHER, *grid.notes)})
    document = {"file_sha256": sha256, "grid": grid.model_dump(mode="json")}
    assignment.write(
        lambda session: analyses.save(session, KIND, key, stage_id=stage.id, target=target, document=document)
    )
