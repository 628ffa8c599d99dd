"""How much each weight matters: one importance per file, the file's name is its id.

Pruning methods offer all of them as `importance: ImportanceId = Field("l2", description=...)`; adding a file
is enough to add one.
"""

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor
from torch.fx import GraphModule

from workers.base import Context
from workers.folders import found_in
from workers.turns import training_turn

#: More calibration samples are not looked at: the order of the scores hardly changes any more.
SAMPLES = 256


class Importance(ABC):
    """A score for every weight of the convolutions and linear layers."""

    title: ClassVar[str]
    #: Paper and equation.
    source: ClassVar[str]

    @abstractmethod
    def scores(self, graph: GraphModule, context: Context) -> dict[str, Tensor]:
        """By parameter name, e.g. "conv1.weight": float32 of the weight's shape on the CPU, >= 0; larger
        means keep. A weight that cannot be judged is not in it. ``graph`` stays as it is.

        Scores add up: the importance of a channel is the sum over its weights. Only the calibration split is
        looked at. Raises StepFailed when nothing can be judged.
        """


class OfWeights(Importance):
    """One that the weights alone tell."""

    @abstractmethod
    def of_weights(self, graph: GraphModule, seed: int) -> dict[str, Tensor]:
        """As `scores`. seed: of the run."""

    def scores(self, graph: GraphModule, context: Context) -> dict[str, Tensor]:
        return self.of_weights(graph, context.seed)


def calibration_batches(context: Context, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """At most SAMPLES calibration samples on the device, drawn by the seed, in batches of at most `size`.

    The host's training turn is held while one is used.
    """
    batches = context.data.batches("calibration", size, shuffle=context.seed)
    for inputs, labels in islice(batches, -(-SAMPLES // size)):
        with training_turn():
            yield inputs.to(context.device), labels.to(context.device)


def working_copy(graph: GraphModule, context: Context) -> GraphModule:
    """On the device, in evaluation mode, every weight with a gradient."""
    return copy.deepcopy(graph).eval().requires_grad_(True).to(context.device)


IMPORTANCES: Mapping[str, type[Importance]] = found_in(sys.modules[__name__], Importance)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    ImportanceId = str
else:
    #: One of the ids: an enum in the schema of a method, and so in its form.
    ImportanceId = Literal[tuple(IMPORTANCES)]
