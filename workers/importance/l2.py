"""The square of a weight."""

from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule

from workers.graph.layer_roles import layer_weights
from workers.importance import OfWeights


class L2(OfWeights):
    """w²; summed over a channel, the square of its L2 norm."""

    title: ClassVar[str] = "L2 norm"
    source: ClassVar[str] = "Fang et al. 2023, DepGraph (arXiv:2301.12900), section 3.2"

    def of_weights(self, graph: GraphModule, seed: int) -> dict[str, Tensor]:  # noqa: ARG002
        return {name: weight.detach().square().float().cpu() for name, weight in layer_weights(graph).items()}
