"""Where a run is to be measured, and what the workers there tell of their machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import app.session
from app.queueing import queue_for
from app.recipes import Plain
from db import workers


@dataclass(frozen=True)
class Place:
    """name: of a machine that has one; empty for those that do runs. facts: what the workers there tell."""

    name: str
    runtime: str
    facts: Sequence[Mapping[str, Any]]

    @property
    def hosts(self) -> set[str]:
        return {facts["host"] for facts in self.facts if "host" in facts}


def place_of(target: str, runtime: str, recipe: Plain, online: set[str]) -> Place:
    """target: a machine that has a name; empty for the worker that will do the run. runtime: what
    `workers.places.choose` takes there.
    """
    queue = queue_for(recipe, online)
    with app.session.reading() as session:
        named = {known.name: known.worker for known in workers.targets(session)}
        own = [worker.facts for worker in workers.online(session) if queue in worker.queues]
    if target:
        return Place(target, runtime, [named[target].facts] if target in named else [])
    return Place("", runtime, own)
