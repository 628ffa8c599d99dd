"""What part a layer plays in a graph: does it give the logits, do others depend on its width?"""

from torch import Tensor, nn
from torch.fx import GraphModule, Node

LAYERS = (nn.Conv2d, nn.Linear)
#: Modules that treat every channel alone.
_PER_CHANNEL = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Mish,
    nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
_POOLS = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")


def layer_weights(graph: GraphModule) -> dict[str, Tensor]:
    """The weights of all convolutions and linear layers by parameter name, e.g. "conv1.weight"."""
    return {
        f"{name}.weight": layer.weight for name, layer in graph.named_modules() if isinstance(layer, LAYERS)
    }


def output_layers(graph: GraphModule) -> set[nn.Module]:
    """The layers that give the logits; their width is the number of classes."""
    modules = dict(graph.named_modules())
    found: set[nn.Module] = set()
    waiting = list(next(node for node in graph.graph.nodes if node.op == "output").all_input_nodes)
    while waiting:
        node = waiting.pop()
        module = modules[str(node.target)] if node.op == "call_module" else None
        if isinstance(module, LAYERS):
            found.add(module)
        else:
            waiting.extend(node.all_input_nodes)
    return found


def inner_layers(graph: GraphModule) -> set[nn.Module]:
    """Convolutions and linear layers that pass their channels, one by one, to the next layers only.

    Such a layer can lose channels whatever the rest of the network does: feed-forward units of a
    transformer, the first convolution of a residual block.
    """
    modules = dict(graph.named_modules())
    calls: dict[nn.Module, list[Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(modules[str(node.target)], []).append(node)
    return {
        module
        for module, nodes in calls.items()
        if isinstance(module, LAYERS) and all(_leads_to_layers(node, modules) for node in nodes)
    }


def _leads_to_layers(node: Node, modules: dict[str, nn.Module]) -> bool:
    """True when every way on goes through per-channel operations into a layer that mixes channels."""
    for user in node.users:
        if user.op == "call_module":
            module = modules[str(user.target)]
            depthwise = (
                isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
            )
            if isinstance(module, LAYERS) and not depthwise:
                if isinstance(module, nn.Conv2d) and module.groups > 1:
                    return False
                continue
            if not (depthwise or isinstance(module, _PER_CHANNEL)):
                return False
        elif not (
            user.op == "call_function" and getattr(user.target, "__name__", "").split(".")[0] in _POOLS
        ):
            return False
        if not _leads_to_layers(user, modules):
            return False
    return bool(node.users)
