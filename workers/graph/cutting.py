"""Where a graph can be cut in two, and the parts that come of it.

A cut stands after a node whose tensor (N, ...) is all that is left of the input there: everything after it
can be computed from that tensor and the weights. Sizes do not count, since each part reads the batch from
what it is given. `torch.fx.passes.split_module` is no help: it hands the weights from part to part.
"""

import operator
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from workers.errors import StepFailed
from workers.graph.shapes import values

#: Two batches that no size of a model is likely to equal by chance.
BATCHES = (2, 5)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_SAME = {f"aten::{name}" for name in ("alias", "contiguous", "detach", "dropout", "feature_dropout", "to")}


def cut_points(graph: GraphModule, shape: tuple[int, ...]) -> list[Node]:
    """Every node after which the graph can be cut, first to last. shape: of one input, (C, H, W)."""
    small, large = (values(graph, shape, batch) for batch in BATCHES)
    body = _body(graph)
    last_use = _last_uses(graph, body)
    written = {_root(node) for node in graph.graph.nodes if _writes(node)}
    end = output_of(graph)
    found, alive_until = [], -1
    for index, node in enumerate(graph.graph.nodes):
        if node not in body or node is end:
            continue
        alone = alive_until <= index
        alive_until = max(alive_until, last_use[node])
        if (
            alone
            and last_use[node] > index
            and node.op != "placeholder"
            and node not in written
            and not _handed_on(graph, node)
            and _is_hidden(small[node], large[node])
        ):
            found.append(node)
    return found


def block_ends(graph: GraphModule, points: Iterable[Node]) -> list[Node]:
    """Of these cut points those that a new layer or branch follows: after the activation, not before."""
    return [
        node for node in points if len(node.users) > 1 or any(_is_layer(graph, user) for user in node.users)
    ]


def part(graph: GraphModule, start: Node, results: Sequence[Node], shape: tuple[int, ...]) -> GraphModule:
    """What computes `results` from the tensor at `start`, as a graph of its own that shares the weights.

    start: the graph's input or a cut point. One result is returned as a tensor, several as a tuple. shape: of
    one input of the whole graph. Raises StepFailed when a size depends on the batch in a way that is unknown.
    """
    needed = _needed(graph, start, results)
    sizes = _Sizes(graph, shape)
    made = Graph()
    given = made.placeholder("input" if start.op == "placeholder" else "hidden")
    new: dict[Node, Any] = {start: given}
    for node in graph.graph.nodes:
        if node in needed and node is not start:
            new[node] = (
                sizes.read(node, made, given) if is_size(node) else made.node_copy(node, lambda n: new[n])
            )
    outputs = tuple(new[result] for result in results)
    made.output(outputs if len(outputs) > 1 else outputs[0])
    made.lint()
    return GraphModule(graph, made).eval()


def input_of(graph: GraphModule) -> Node:
    found: Node = next(node for node in graph.graph.nodes if node.op == "placeholder")
    return found


def output_of(graph: GraphModule) -> Node:
    """The node whose value the graph returns."""
    returned = next(node for node in reversed(graph.graph.nodes) if node.op == "output").args[0]
    assert isinstance(returned, Node)
    return returned


class _Sizes:
    """Sizes as a part reads them: numbers, or the batch of what it is given times a number."""

    def __init__(self, graph: GraphModule, shape: tuple[int, ...]) -> None:
        self.graph, self.shape = graph, shape
        self.batch: Node | None = None

    @cached_property
    def known(self) -> list[dict[Node, Any]]:
        """What every node gives for either batch; most graphs never ask."""
        return [values(self.graph, self.shape, batch) for batch in BATCHES]

    def read(self, size: Node, made: Graph, given: Node) -> Node | int:
        small, large = (int(found[size]) for found in self.known)
        if small == large:
            return small
        factor, rest = divmod(small, BATCHES[0])
        if rest or factor * BATCHES[1] != large:
            raise StepFailed(
                "cutting",
                f"the size {size.name!r} is {small} for a batch of {BATCHES[0]} and {large} for one of "
                f"{BATCHES[1]}.",
                "Export a model whose sizes are multiples of the batch.",
            )
        if self.batch is None:
            self.batch = made.call_function(torch.ops.aten.sym_size.int, (given, 0))
        return self.batch if factor == 1 else made.call_function(operator.mul, (self.batch, factor))


def _body(graph: GraphModule) -> set[Node]:
    """Nodes that the input's numbers reach."""
    body: set[Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or (not is_size(node) and not body.isdisjoint(node.all_input_nodes)):
            body.add(node)
    return body


def _last_uses(graph: GraphModule, body: set[Node]) -> dict[Node, int]:
    last = dict.fromkeys(body, -1)
    for index, node in enumerate(graph.graph.nodes):
        if not is_size(node):
            last.update(dict.fromkeys(body.intersection(node.all_input_nodes), index))
    return last


def _needed(graph: GraphModule, start: Node, results: Iterable[Node]) -> set[Node]:
    """Everything between `start` and `results`, with what writes into it."""
    writers: dict[Node, list[Node]] = {}
    for node in graph.graph.nodes:
        if _writes(node):
            writers.setdefault(_root(node), []).append(node)
    needed, waiting = {start}, list(results)
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            inputs = [] if is_size(node) else node.all_input_nodes
            waiting += [*inputs, *writers.get(node, ())]
    return needed


def is_size(node: Node) -> bool:
    """True for nodes that read the batch, or another size, off a tensor."""
    return node.target is torch.ops.aten.sym_size.int


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _root(node: Node) -> Node:
    """The tensor that an in-place operator writes into, seen through slices and other views."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], Node):
        node = node.args[0]
        schema = getattr(node.target, "_schema", None)
        if schema is None or not any(argument.alias_info for argument in schema.arguments):
            break
    return node


def _is_hidden(small: Any, large: Any) -> bool:
    """True for vectors, tokens and maps in float32, (N, ...) with otherwise fixed sizes."""
    if not isinstance(small, torch.Tensor) or small.dtype is not torch.float32 or not 2 <= small.dim() <= 4:
        return False
    return (small.shape[0], large.shape[0]) == BATCHES and small.shape[1:] == large.shape[1:]


def _handed_on(graph: GraphModule, node: Node) -> bool:
    """True where the next operator gives the same tensor in evaluation: saved, the two become one."""
    if len(node.users) != 1:
        return False
    (user,) = node.users
    if user.op == "call_module":
        return isinstance(graph.get_submodule(str(user.target)), _DROPOUTS)
    schema = getattr(user.target, "_schema", None)
    return schema is not None and schema.name in _SAME


def _is_layer(graph: GraphModule, node: Node) -> bool:
    """Convolutions and the like: a weight of two dimensions or more."""
    if node.op != "call_module":
        return False
    module: nn.Module = graph.get_submodule(str(node.target))
    return any(parameter.dim() > 1 for parameter in module.parameters())
