"""A model's graph as a few boxes that a person can look at.

A box is a layer with what follows it alone (norm, activation). Where that makes too many, a box is what lies
between two places where a single tensor is alive, e.g. a residual block; equal neighbours become one box.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

#: More boxes than this are drawn coarser.
MOST = 40
#: What only hands numbers on in another order or shape tells nothing of a block.
_MOVES = frozenset(
    """reshape view flatten unflatten permute transpose squeeze unsqueeze contiguous select slice getitem
    expand chunk split unbind unfold alias clone detach to""".split()
)


@dataclass
class Block:
    """inputs: places in the list of blocks. repeats: so many equal ones follow each other."""

    names: list[str] = field(default_factory=list)
    layers: Counter[str] = field(default_factory=Counter)
    parameters: int = 0
    inputs: list[int] = field(default_factory=list)
    repeats: int = 1

    def told(self) -> dict[str, Any]:
        return {
            "name": common_name(self.names),
            "layers": dict(self.layers),
            "parameters": self.parameters,
            "inputs": self.inputs,
            "repeats": self.repeats,
        }


def blocks_of(graph: GraphModule, most: int = MOST) -> list[dict[str, Any]]:
    """In the order of the computation; the names of layers are what the user's file calls them."""
    nodes = _working(graph)
    found = _filled(graph, nodes, _fine(graph, nodes))
    if len(found) > most:
        found = _folded(_filled(graph, nodes, _coarse(graph, nodes)))
    return [block.told() for block in found]


def common_name(names: list[str]) -> str:
    """`layer1.0` for `layer1.0.conv1` and `layer1.0.bn1`; the first and the last where nothing is shared."""
    if not names:
        return ""
    first, last = (name.split(".") for name in (names[0], names[-1]))
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    shared = [part for part, _ in pairs]
    return ".".join(shared) or f"{names[0]} – {names[-1]}"


def _working(graph: GraphModule) -> list[Node]:
    """Nodes that pass the picture on: no constants, no sizes and what is computed of those alone."""
    idle: set[Node] = set()
    for node in graph.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr" or "sym_size" in str(node.target) or (inputs and idle.issuperset(inputs)):
            idle.add(node)
    return [
        node for node in graph.graph.nodes if node not in idle and node.op not in ("placeholder", "output")
    ]


def _fine(graph: GraphModule, nodes: list[Node]) -> list[int]:
    """The box of each node."""
    places: dict[Node, int] = {}
    count, working = 0, set(nodes)
    for node in nodes:
        before = [source for source in node.all_input_nodes if source in places]
        alone = len(before) == 1 and len(working.intersection(before[0].users)) == 1
        if alone and not _is_layer(graph, node):
            places[node] = places[before[0]]
        else:
            places[node], count = count, count + 1
    return list(places.values())


def _coarse(graph: GraphModule, nodes: list[Node]) -> list[int]:
    """As `_fine`, but a box may also branch, as long as it joins again before it ends."""
    last_use = {node: index for index, node in enumerate(nodes)}
    for index, node in enumerate(nodes):
        last_use |= {source: index for source in node.all_input_nodes if source in last_use}
    places: list[int] = []
    alive: set[Node] = set()
    place, lone = 0, True
    for index, node in enumerate(nodes):
        was_lone = lone
        alive = {other for other in (*alive, node) if last_use[other] > index}
        lone = len(alive) <= 1
        # A branch begins a box; so does a layer of a plain chain.
        if index and was_lone and (not lone or _is_layer(graph, node)):
            place += 1
        places.append(place)
    return places


def _filled(graph: GraphModule, nodes: list[Node], places: list[int]) -> list[Block]:
    where = dict(zip(nodes, places, strict=True))
    found = [Block() for _ in range(max(places) + 1)]
    for node, place in where.items():
        block = found[place]
        kind = _kind(graph, node)
        if kind not in _MOVES:
            block.layers[kind] += 1
        own = _parameters(graph, node)
        if own:  # the others got their names here, not from the user
            block.names.append(str(node.target))
            block.parameters += sum(parameter.numel() for parameter in own)
        sources = {where[source] for source in node.all_input_nodes if source in where} - {place}
        block.inputs = sorted({*block.inputs, *sources})
    return found


def _folded(chain: list[Block]) -> list[Block]:
    """Equal neighbours as one. chain: each block follows the one before it."""
    folded: list[Block] = []
    for block in chain:
        before = folded[-1] if folded else None
        if before and _same(before, block):
            before.repeats += 1
            before.names += block.names
        else:
            block.inputs = [len(folded) - 1] if folded else []
            folded.append(block)
    return folded


def _same(before: Block, block: Block) -> bool:
    return (before.layers, before.parameters) == (block.layers, block.parameters)


def _is_layer(graph: GraphModule, node: Node) -> bool:
    """Convolutions and the like: a weight of two dimensions or more."""
    return any(parameter.dim() > 1 for parameter in _parameters(graph, node))


def _parameters(graph: GraphModule, node: Node) -> list[nn.Parameter]:
    return list(graph.get_submodule(str(node.target)).parameters()) if node.op == "call_module" else []


def _kind(graph: GraphModule, node: Node) -> str:
    if node.op == "call_module":
        module: nn.Module = graph.get_submodule(str(node.target))
        return type(module).__name__
    schema = getattr(node.target, "_schema", None)
    return str(
        schema.name.removeprefix("aten::") if schema else getattr(node.target, "__name__", node.target)
    )
