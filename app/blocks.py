"""Where exits may stand in a model: its blocks, once a worker has timed them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import app.session
from db import analyses, jobs
from db.models import Dataset, Job, Model
from workers.exits.placing import SHARES, Spot, spread
from workers.work.blocks import KIND, about

#: Blocks that take less of the latency are drawn as one, so that a line of a hundred can be read and hit.
LEAST = 0.04


@dataclass(frozen=True)
class Asked:
    """Whose blocks, with which heads, and the runtime that they are timed in."""

    model: Model
    dataset: Dataset
    head: str
    runtime: str

    @property
    def request(self) -> dict[str, str]:
        """What a job `blocks` of the model takes."""
        return {"dataset": self.dataset.id, "head": self.head, "runtime": self.runtime}


@dataclass(frozen=True)
class Blocks:
    """spots: between the blocks, first to last. target: where they were timed."""

    spots: Sequence[Spot]
    target: Mapping[str, Any]


def known_blocks(asked: Asked) -> Blocks | None:
    wanted = about(asked.model, asked.dataset, asked.head, asked.runtime)
    with app.session.reading() as session:
        for found in analyses.of_model(session, KIND, asked.model.id):
            if found.document["about"] == wanted:
                spots = [Spot.model_validate(spot) for spot in found.document["spots"]]
                return Blocks(spots, found.target)
    return None


def job_of(asked: Asked) -> Job | None:
    """The model's newest job of this kind, where it is to find out the same."""
    with app.session.reading() as session:
        job = jobs.latest(session, [asked.model.id], KIND).get(asked.model.id)
    return job if job is not None and job.request == asked.request else None


def proposals(spots: Sequence[Spot]) -> dict[int, list[str]]:
    """By the number of exits that is asked for: the nodes that a run would put them after."""
    answered = [spot.answered for spot in spots]
    return {number: [spots[index].name for index in spread(answered, number)] for number in SHARES}


def merged(spots: Sequence[Spot], keep: Collection[str]) -> list[Spot]:
    """Of cuts with less than LEAST between them the one that answers first, and none so close to the start or
    the end; those named in any case."""
    groups: list[list[Spot]] = []
    for spot in spots:
        if groups and spot.share < groups[-1][0].share + LEAST:
            groups[-1].append(spot)
        elif LEAST <= spot.share <= 1 - LEAST:
            groups.append([spot])
    first = {min(group, key=lambda spot: spot.answered).name for group in groups}
    return [spot for spot in spots if spot.name in first or spot.name in keep]
