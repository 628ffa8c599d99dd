"""Kind `blocks`: where a model as uploaded can be cut for exits, and the share of its latency up to there."""

from typing import Any

import torch

from db import analyses
from db.models import Dataset, Model
from db.session import reading
from workers.assignment import Assignment
from workers.base import Context, Progress
from workers.errors import StepFailed
from workers.exits.placing import timed_block_ends
from workers.places import choose
from workers.stages import code_sha256, key_of
from workers.work.files import open_data, open_model_of, prepared

KIND = "blocks"


def about(model: Model, dataset: Dataset, head: str, runtime: str) -> dict[str, Any]:
    """What a document tells of, but for the machine: a page shows it while this is what it would ask for."""
    return {
        "file": model.file_sha256,
        "spec": model.spec,
        "data": dataset.sha256,
        "head": head,
        "runtime": runtime,
        "code": code_sha256(),
    }


def do(assignment: Assignment) -> None:
    """subject_id: the model. request: {"dataset": whose samples it gets, "head": of the exits, "runtime":
    what `workers.places.choose` takes}.
    """
    settings, request = assignment.settings, assignment.job.request
    head = request["head"]
    with reading(settings.database) as session:
        model = session.get_one(Model, assignment.job.subject_id)
        dataset = session.get_one(Dataset, request["dataset"])
    place = choose(request["runtime"], settings.threads).steps
    target = place.target.model_dump(mode="json")
    asked = about(model, dataset, head, request["runtime"])
    key = key_of(asked, target)
    with reading(settings.database) as session:
        if analyses.find(session, KIND, key) is not None:
            return
    assignment.tell("Opening the model")
    candidate = open_model_of(assignment, model)
    if candidate.graph is None:
        raise StepFailed("early_exit", "an ONNX file cannot be cut.", "Upload the model as a .pt2.")

    def tell(progress: Progress) -> None:
        assignment.tell("Timing the blocks of the model", share=progress.share)

    context = Context(
        data=prepared(assignment, open_data(assignment, dataset), candidate.spec),
        original=candidate,
        runtime=place.runtime,
        target=place.target,
        device=torch.device(settings.device),
        seed=0,
        scratch=assignment.folder,
        tell=tell,
    )
    spots = timed_block_ends(candidate.graph, head, context)
    if not spots:
        raise StepFailed(
            "early_exit", "this model cannot be cut between its blocks.", "Leave the exits out of the recipe."
        )
    document = {"about": asked, "spots": [spot.model_dump(mode="json") for spot in spots]}
    assignment.write(
        lambda session: analyses.save(session, KIND, key, model_id=model.id, target=target, document=document)
    )
