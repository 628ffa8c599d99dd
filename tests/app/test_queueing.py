"""Which queue a recipe goes to."""

import pytest

from app.queueing import queue_for

TRAINS = {"name": "Train", "steps": [{"method": "fine_tuning", "epochs": 1}]}
CUTS = {"name": "Cut", "steps": [{"method": "structured_pruning", "amount": 0.5, "recovery": "none"}]}
RECOVERS = {"name": "Cut", "steps": [{"method": "structured_pruning", "recovery": "distillation"}]}


@pytest.mark.parametrize(
    ("recipe", "online", "queue"),
    [
        (TRAINS, {"cpu", "gpu"}, "gpu"),
        (TRAINS, {"cpu"}, "cpu"),
        (TRAINS, set(), "cpu"),
        (CUTS, {"gpu"}, "cpu"),
        (RECOVERS, {"gpu"}, "gpu"),
    ],
)
def test_training_takes_the_gpu_only_where_one_is_online(
    recipe: dict[str, object], online: set[str], queue: str
) -> None:
    assert queue_for(recipe, online) == queue
