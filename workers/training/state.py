"""Everything that changes while a model trains, in the form that a checkpoint keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from workers.training.optimizers import make_optimizer, make_schedule
from workers.training.settings import TrainingSettings

#: What makes one epoch better than another: its point -> the higher, the better.
Rank = Callable[[Mapping[str, float]], float]


def by_accuracy(point: Mapping[str, float]) -> float:
    return point["accuracy"]


@dataclass(frozen=True)
class History:
    """What happened, epoch by epoch; ``points[0]`` is the model before training.

    points: {"epoch", "accuracy"}, the share 0-1 of the validation split, "exit_1" … likewise where there are
    exits, and from epoch 1 on "loss" (mean over the training batches) and "learning_rate" (where the epoch
    ended).
    best_epoch: the epoch whose weights the model has now.
    """

    points: tuple[Mapping[str, float], ...]
    best_epoch: int

    @property
    def start_accuracy(self) -> float:
        return self.points[0]["accuracy"]

    @property
    def best_accuracy(self) -> float:
        return self.points[self.best_epoch]["accuracy"]


class TrainingState:
    """Model, optimiser, schedule, points so far and the best weights seen.

    Random numbers need no place here: every epoch seeds its own.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, steps: int, rank: Rank) -> None:
        self.model, self.patience, self.rank = model, settings.patience, rank
        self.optimizer = make_optimizer(model, settings)
        self.schedule = make_schedule(self.optimizer, settings, steps)
        self.points: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    @property
    def history(self) -> History:
        return History(tuple(self.points), self.best_epoch)

    @property
    def finished_early(self) -> bool:
        """True when the last ``patience`` epochs were all no better than one before them."""
        reached = max(range(len(self.points)), key=lambda epoch: self.rank(self.points[epoch]))  # the first
        return 0 < self.patience <= len(self.points) - 1 - reached

    def record(self, point: dict[str, float]) -> None:
        """End an epoch; of equally good ones the later is kept, which saw the smaller learning rate."""
        self.points.append(point)
        if self.rank(point) >= self.rank(self.points[self.best_epoch]):
            self.best_epoch = len(self.points) - 1
            self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "points": self.points,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.points = state["points"]
        self.best_epoch = state["best_epoch"]
        self.best_weights = state["best_weights"]
