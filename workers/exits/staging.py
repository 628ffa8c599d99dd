"""A graph with exits: (N, C, H, W) -> (N, exits + 1, classes), the logits of every exit and of the end.

The heads stand last in the graph, behind everything that was there, so that the names of the other nodes stay
what they are when the graph is saved and read again. Where a head belongs is read from the graph itself.
"""

import copy
from collections.abc import Mapping
from itertools import count
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from workers.errors import StepFailed
from workers.graph.cutting import input_of, is_size, output_of, part
from workers.graph.shapes import values

HEAD = "early_exit"


def add_exits(graph: GraphModule, heads: Mapping[str, nn.Sequential]) -> GraphModule:
    """A copy with a head after each of the nodes named, first to last."""
    staged = copy.deepcopy(graph)
    nodes = {node.name: node for node in staged.graph.nodes}
    end = output_of(staged)
    output = next(user for user in end.users if user.op == "output")
    logits = []
    with staged.graph.inserting_before(output):
        for cut, head in heads.items():
            name = _free_name(staged)
            last = nodes[cut]
            staged.add_submodule(name, nn.Module())
            for place, layer in head.named_children():
                staged.add_submodule(f"{name}.{place}", layer)
                last = staged.graph.call_module(f"{name}.{place}", (last,))
            logits.append(last)
        stacked = staged.graph.call_function(torch.ops.aten.stack.default, ([*logits, end], 1))
    output.args = (stacked,)
    staged.graph.lint()
    staged.recompile()
    return staged.eval()


def staged_logits(graph: GraphModule, inputs: Tensor) -> Tensor:
    """(exits + 1, N, classes): the answer of every exit, and last that of the end, to inputs (N, C, H, W)."""
    with torch.no_grad():
        logits: Tensor = graph.eval()(inputs)
    return logits.transpose(0, 1)


def cuts_of(graph: GraphModule) -> tuple[Node, ...]:
    """The node that each head reads, first to last."""
    *exits, end = ends_of(graph)
    body = _ancestors(end, set())
    return tuple(_entrance(logits, body) for logits in exits)


def heads_of(graph: GraphModule) -> set[Node]:
    """All nodes of the heads."""
    *exits, end = ends_of(graph)
    body = _ancestors(end, set())
    return {node for logits in exits for node in _ancestors(logits, body)} - body


def segments(graph: GraphModule, shape: tuple[int, ...]) -> list[GraphModule]:
    """What is computed from exit to exit: hidden -> (logits, hidden), the last one hidden -> logits.

    They share the weights of `graph`. shape: of one input, (C, H, W).
    """
    cuts, ends = cuts_of(graph), ends_of(graph)
    starts = (input_of(graph), *cuts)
    results = [*zip(ends, cuts, strict=False), (ends[-1],)]
    return [part(graph, start, result, shape) for start, result in zip(starts, results, strict=True)]


def hidden_shapes(graph: GraphModule, shape: tuple[int, ...]) -> list[torch.Size]:
    """What is handed on at each exit, without the batch."""
    known = values(graph, shape)
    return [known[cut].shape[1:] for cut in cuts_of(graph)]


def balanced(graph: GraphModule) -> GraphModule:
    """The same graph, to train: gradients are scaled where an exit leaves, so that none adds up.

    Gradient equilibrium (Li et al. 2019, arXiv:1908.06294, section 3.2): at exit m of M the head's gradient
    is multiplied by 1 / (M - m + 1), what comes from behind by (M - m) / (M - m + 1). Shares all weights.
    """
    cuts, heads = cuts_of(graph), heads_of(graph)
    made = copy.deepcopy(graph.graph)
    new = dict(zip(graph.graph.nodes, made.nodes, strict=True))
    for index, cut in enumerate(cuts):
        left = len(cuts) + 1 - index
        for users, factor in (
            ([user for user in cut.users if user in heads], 1 / left),
            ([user for user in cut.users if user not in heads], (left - 1) / left),
        ):
            with made.inserting_after(new[cut]):
                scaled = made.call_function(scale_gradient, (new[cut], factor))
            for user in users:
                new[user].replace_input_with(new[cut], scaled)
    made.lint()
    return GraphModule(graph, made)


class HeadsOnly(nn.Module):
    """A staged graph of which only the heads train: the rest keeps its weights and its evaluation mode."""

    def __init__(self, staged: GraphModule) -> None:
        super().__init__()
        self.staged = staged.requires_grad_(False)
        self.heads = [
            staged.get_submodule(str(node.target)).requires_grad_(True)
            for node in heads_of(staged)
            if node.op == "call_module"
        ]

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.staged(inputs)
        return logits

    def train(self, mode: bool = True) -> Self:
        super().train(False)
        for head in self.heads:
            head.train(mode)
        return self


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """The tensor as it is; its gradient times `factor`."""
    scaled: Tensor = _ScaleGradient.apply(tensor, factor)
    return scaled


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None


def ends_of(graph: GraphModule) -> list[Node]:
    """The nodes that give the logits of every exit and of the end. Raises StepFailed for a graph without."""
    stacked = output_of(graph)
    if stacked.target is not torch.ops.aten.stack.default:
        raise StepFailed("early exits", "the graph has none.", "Add a step early_exit to the recipe.")
    return list(stacked.args[0])  # type: ignore[arg-type]


def _ancestors(node: Node, known: set[Node]) -> set[Node]:
    """The node and all that it is computed from, up to what is known already."""
    found, waiting = set(known), [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _entrance(logits: Node, body: set[Node]) -> Node:
    """The one node of the body whose tensor a head reads."""
    head = _ancestors(logits, body) - body
    (entrance,) = {
        source
        for node in head
        for source in node.all_input_nodes
        if source in body and source.op != "get_attr" and not is_size(source)
    }
    return entrance


def _free_name(graph: GraphModule) -> str:
    taken = {name.partition(".")[0] for name, _ in graph.named_modules()}
    return next(name for name in (f"{HEAD}_{number}" for number in count(1)) if name not in taken)
