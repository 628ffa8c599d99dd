"""Which module of the graph a layer of the file was."""

from collections.abc import Iterator, Sequence

import numpy as np
from onnx import numpy_helper
from torch import nn
from torch.fx import GraphModule, Node

from workers.graph.naming import module_of
from workers.quantization.network import Layer, Network, bias_name


def module_names(network: Network, graph: GraphModule | None) -> dict[str, str]:
    """The module's name by node; that of the weight where nothing tells.

    Told by what the parameters are called, and where an exporter wrote a weight under another name, as it
    does for linear layers that become a MatMul, by its numbers. graph: None for an ONNX upload.
    """
    known = None if graph is None else {name for name, _ in graph.named_modules()}
    names = {}
    for layer in network.layers:
        parameters = (layer.weight, bias_name(network.model, layer))
        told = [module for parameter in parameters if parameter and (module := module_of(parameter))]
        found = next((module for module in told if known is None or module in known), None)
        if found is not None:
            names[layer.node] = found
    if graph is not None:
        rest = [layer for layer in network.layers if layer.node not in names]
        names |= {layer.node: str(node.target) for node, _, layer in pairs(graph, network, rest)}
    return {layer.node: names.get(layer.node, layer.weight) for layer in network.layers}


def pairs(
    graph: GraphModule, network: Network, layers: Sequence[Layer]
) -> Iterator[tuple[Node, nn.Module, Layer]]:
    """Calls of modules, and which of these layers of the file has their weights; equal ones go in order."""
    modules = dict(graph.named_modules())
    waiting = {layer.node: layer for layer in layers}
    weights = network.weights
    for node in graph.graph.nodes:
        module = modules[str(node.target)] if node.op == "call_module" else None
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        mine = module.weight.detach().cpu().numpy()
        for layer in waiting.values():
            stored = numpy_helper.to_array(weights[layer.weight])
            if np.array_equal(stored if layer.weight_axis == 0 else stored.T, mine):
                del waiting[layer.node]
                yield node, module, layer
                break
