"""Train with the rounding of the exported file in place, so that the weights learn to live with it.

Jacob et al. 2018 (arXiv:1712.05877), section 3; gradients pass the rounding as if it were not there, and
stop where a value is clipped (straight-through, Bengio et al. 2013, arXiv:1308.3432). BatchNorm is folded
before, as it is in the file. Ranges of activations are those of the file and stay; weights are scaled anew
at every step, as the file will scale them.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from workers.quantization.naming import pairs
from workers.quantization.network import Layer, Network
from workers.quantization.probes import affine
from workers.quantization.ranges import Range
from workers.quantization.scheme import Scheme

ROUNDING = "rounding"


class RoundedActivation(nn.Module):
    """uint8 with a fixed range, as a float."""

    def __init__(self, limits: Range) -> None:
        super().__init__()
        self.scale, self.zero_point = affine(*limits)

    def forward(self, values: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, 0, 255)


class RoundedWeight(nn.Module):
    """int8 per output channel, symmetric: the largest weight of a channel gets the largest integer."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, weight: Tensor) -> Tensor:
        largest = weight.detach().flatten(1).abs().amax(dim=1)
        scale = torch.where(largest > 0, largest / self.limit, torch.ones_like(largest))
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -self.limit, self.limit)


def folded(graph: GraphModule) -> GraphModule:
    """A copy in which BatchNorm is part of the convolution before it."""
    graph = copy.deepcopy(graph).eval()
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        first, second = modules[str(before.target)], modules[str(node.target)]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            graph.set_submodule(str(before.target), fuse_conv_bn_eval(first, second))
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def with_rounding(
    graph: GraphModule, network: Network, ranges: Mapping[str, Range], scheme: Scheme
) -> tuple[GraphModule, int]:
    """A copy that rounds as the file of `network` will; and how many of its layers were found in it.

    ranges: of the tensors that the file quantizes. Layers are recognised by their weights.
    """
    graph = copy.deepcopy(graph)
    rounded: dict[Node, Range] = {}
    found = 0
    for node, module, layer in pairs(graph, network, network.layers):
        found += 1
        for place, name in ((node.args[0], layer.input), (node, _sum(network, layer))):
            if name in ranges and isinstance(place, Node):
                rounded[place] = ranges[name]
        if not parametrize.is_parametrized(module):
            parametrize.register_parametrization(module, "weight", RoundedWeight(scheme.weight_limit))
    for number, (node, limits) in enumerate(rounded.items()):
        name = f"{ROUNDING}{number}"
        graph.add_submodule(name, RoundedActivation(limits))
        with graph.graph.inserting_after(node):
            after = graph.graph.call_module(name, (node,))
        node.replace_all_uses_with(after, propagate_meta=False)
        after.args = (node,)
    graph.recompile()
    return graph, found


def without_rounding(graph: GraphModule) -> GraphModule:
    """The trained network alone, in place."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), RoundedActivation):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    for module in list(graph.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _sum(network: Network, layer: Layer) -> str:
    """The layer's output with its bias."""
    return next(node.output[0] for node in network.model.graph.node if node.name == layer.adder)
