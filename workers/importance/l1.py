"""The size of a weight."""

from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule

from workers.graph.layer_roles import layer_weights
from workers.importance import OfWeights


class L1(OfWeights):
    """|w|; summed over a channel, its L1 norm."""

    title: ClassVar[str] = "L1 norm"
    source: ClassVar[str] = "Li et al. 2017, Pruning Filters for Efficient ConvNets (arXiv:1608.08710), 3.1"

    def of_weights(self, graph: GraphModule, seed: int) -> dict[str, Tensor]:  # noqa: ARG002
        return {name: weight.detach().abs().float().cpu() for name, weight in layer_weights(graph).items()}
