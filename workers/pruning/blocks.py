"""Residual blocks that can go whole: x + f(x) becomes x."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from workers.base import Context
from workers.graph.layer_roles import LAYERS
from workers.importance import calibration_batches

BATCH = 64


@dataclass(frozen=True)
class Block:
    """add: the name of the addition that ends it. entry: the value that goes around it.

    layers: the convolutions and linear layers inside.
    """

    add: str
    entry: str
    layers: tuple[str, ...]


def residual_blocks(graph: GraphModule, sample: Tensor) -> list[Block]:
    """Those whose inside is reached from `entry` alone and ends at the addition, with the same shape."""
    shapes = _Shapes(graph).of(sample)
    found = []
    for node in graph.graph.nodes:
        operands = node.all_input_nodes
        if not _is_addition(node) or len(operands) != 2:
            continue
        if shapes[operands[0]] is None or shapes[operands[0]] != shapes[operands[1]]:
            continue
        for end, around in (operands, operands[::-1]):
            entry = _unchanged(around, graph)
            inside = _inside(end, entry, node)
            layers = [str(n.target) for n in inside or () if _is_layer(n, graph)]
            if layers:
                found.append(Block(node.name, entry.name, tuple(layers)))
    return found


def without(graph: GraphModule, block: Block) -> GraphModule:
    """A copy where the block gives what it was given."""
    short = copy.deepcopy(graph)
    nodes = {node.name: node for node in short.graph.nodes}
    nodes[block.add].replace_all_uses_with(nodes[block.entry])
    short.graph.eliminate_dead_code()
    short.delete_all_unused_submodules()
    short.recompile()
    return short


def remove_blocks(
    graph: GraphModule,
    sample: Tensor,
    context: Context,
    *,
    most: int,
    keep: frozenset[str],
    enough: Callable[[GraphModule], bool],
) -> tuple[GraphModule, list[Block]]:
    """Remove up to `most` blocks, each time the one whose absence raises the calibration loss least.

    Stops early when the rest is `enough` smaller. Blocks with a layer in `keep` stay.
    """
    removed: list[Block] = []
    while len(removed) < most and not enough(graph):
        blocks = [block for block in residual_blocks(graph, sample) if not keep & set(block.layers)]
        if not blocks:
            break
        candidates = [(without(graph, block), block) for block in blocks]
        losses = [_loss(shorter, context) for shorter, _ in candidates]
        graph, gone = candidates[losses.index(min(losses))]
        removed.append(gone)
    return graph, removed


@torch.no_grad()
def _loss(graph: GraphModule, context: Context) -> float:
    """Mean cross-entropy over calibration samples."""
    graph = graph.eval().to(context.device)
    losses = [
        float(F.cross_entropy(graph(inputs), labels, reduction="sum"))
        for inputs, labels in calibration_batches(context, BATCH)
    ]
    graph.cpu()
    return sum(losses)


def _inside(end: Node, entry: Node, add: Node) -> set[Node] | None:
    """What is computed from `entry` to `end`; None when something else goes in or comes out."""
    inside: set[Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is entry or node in inside or node.op == "get_attr":
            continue
        if node.op == "placeholder":
            return None
        inside.add(node)
        waiting.extend(node.all_input_nodes)
    leaves = any(user not in inside and user is not add for node in inside for user in node.users)
    return None if leaves or not inside else inside


def _unchanged(node: Node, graph: GraphModule) -> Node:
    """What an nn.Identity was given."""
    while node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), nn.Identity):
        node = node.all_input_nodes[0]
    return node


def _is_addition(node: Node) -> bool:
    return node.op in ("call_function", "call_method") and "add" in str(
        getattr(node.target, "__name__", node.target)
    ).split(".")[0].strip("_")


def _is_layer(node: Node, graph: GraphModule) -> bool:
    return node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), LAYERS)


class _Shapes(Interpreter):
    """The shape of every value."""

    def of(self, sample: Tensor) -> dict[Node, tuple[int, ...] | None]:
        self.found: dict[Node, tuple[int, ...] | None] = {}
        with torch.no_grad():
            self.run(sample)
        return self.found

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        self.found[n] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value
