"""No importance at all: the control that every other one must beat."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule

from workers.graph.layer_roles import layer_weights
from workers.importance import OfWeights


class Random(OfWeights):
    """Independent draws from the run's seed.

    Their tail is heavy (1/u², u uniform), so that sums over the many weights of a channel stay as different
    from each other as single draws are; sums of uniform draws would all be nearly equal.
    """

    title: ClassVar[str] = "Random (control)"
    source: ClassVar[str] = "Control experiment as in Mittal et al. 2018 (arXiv:1801.10447)"

    def of_weights(self, graph: GraphModule, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {
            name: (1 - torch.rand(weight.shape, generator=generator)).pow(-2)
            for name, weight in layer_weights(graph).items()
        }
