"""Put other layers in the place of one."""

from torch import nn
from torch.fx import GraphModule, Node


def replaceable_layers(graph: GraphModule) -> dict[str, nn.Module]:
    """Modules that are called, by their name, and whose weights nothing else in the graph reads."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    called = {str(node.target): node for node in graph.graph.nodes if node.op == "call_module"}
    return {
        name: graph.get_submodule(name)
        for name in called
        if not any(other.startswith(f"{name}.") for other in read)
    }


def replace_layer(graph: GraphModule, name: str, layers: nn.Sequential) -> None:
    """Call `layers` one after the other wherever the module `name` was called, in place.

    They become `name.0`, `name.1` …
    """
    graph.set_submodule(name, layers)
    for node in [n for n in graph.graph.nodes if n.op == "call_module" and n.target == name]:
        with graph.graph.inserting_before(node):
            last: Node = node.all_input_nodes[0]
            for part, _ in layers.named_children():
                last = graph.graph.call_module(f"{name}.{part}", (last,))
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
    graph.recompile()
