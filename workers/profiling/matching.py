"""Which layer of the file an operator of the runtime computes, and what that layer costs.

The runtime fuses and rewrites, but leaves traces: an operator is called after a node of the file, after a
tensor that a node makes, or makes such a tensor. From that node the rest of what was fused follows.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from workers.graph.naming import bare_name, module_of
from workers.measures.macs import PRODUCTS
from workers.profiling.recording import WITH_GRAPHS, Operator, plain_name

#: What the runtime adds between layers, whatever it calls it after.
ADDED = frozenset("Cast DequantizeLinear QuantizeLinear ReorderInput ReorderOutput".split())
#: Nodes that change only how numbers are written.
FORMAT = frozenset("Cast Constant DequantizeLinear Identity QuantizeLinear Reshape Squeeze Transpose".split())
#: Of a fused operator the runtime's own name for it, before what it is called after.
_FUSED = re.compile(r"^fused |/(MatMulScaleFusion|GatherSliceToSplitFusion)/?$|_nchwc$|_nhwc$")


@dataclass(frozen=True)
class Layer:
    """name: of the module as far as it is known, else of the node. kind: the nodes in it, "Conv + Relu".

    weighted: it has weights, so that its name is the model's own and the same in other files of the model.
    macs: of the call that was seen. moved_bytes: activations and weights, each once.
    """

    name: str
    kind: str
    weighted: bool
    precision: str
    macs: int
    moved_bytes: int


class Layers:
    """The layers of one file.

    operators: of its recording, in the order in which they ran.
    """

    def __init__(self, file: Path, operators: Sequence[Operator]) -> None:
        graph = onnx.load(str(file), load_external_data=False).graph
        self._nodes = list(_all_nodes(graph))
        self._weights = {tensor.name: tensor for tensor in _all_weights(graph)}
        self._maker = {name: index for index, node in enumerate(self._nodes) for name in node.output}
        self._named = {node.name: index for index, node in enumerate(self._nodes) if node.name}
        anchors = {
            index: found for index, found in enumerate(map(self._anchor, operators)) if found is not None
        }
        groups = self._groups(operators, anchors)
        self._found = {
            id(operator): self._layer(operator, groups[anchors[index]])
            for index, operator in enumerate(operators)
            if index in anchors
        }

    def of(self, operator: Operator) -> Layer | None:
        """None for what the runtime added: other orders of numbers, other number formats."""
        return self._found.get(id(operator))

    def products(self) -> Iterator[tuple[NodeProto, TensorProto, str]]:
        """Nodes of the file that multiply with a module's weight: with the weight and the module's name."""
        for node in self._nodes:
            weight = self._weight(node) if node.op_type in PRODUCTS else None
            name, known = self._name(node, weight)
            if weight is not None and known:
                yield node, weight, name

    def _anchor(self, operator: Operator) -> int | None:
        """Index of the node after which an operator is called, or whose tensor it makes."""
        if operator.kind in ADDED or operator.kind in WITH_GRAPHS:
            return None
        for name in (operator.name, plain_name(operator.name)):
            called = _FUSED.sub("", name)
            for known in (self._named.get(called), self._maker.get(called)):
                if known is not None and (operator.kind != "Transpose" or self._kind(known) == "Transpose"):
                    return known
        if operator.kind == "Transpose":  # a change of order that only passes on what a layer made
            return None
        return next((self._maker[name] for name in operator.made if name in self._maker), None)

    def _kind(self, index: int) -> str:
        return str(self._nodes[index].op_type)

    def _groups(self, operators: Sequence[Operator], anchors: Mapping[int, int]) -> dict[int, list[int]]:
        """Anchor -> the nodes that its operator computes, in the order of the file."""
        owner = {anchor: anchor for anchor in anchors.values()}
        multiplies = {anchor for place, anchor in anchors.items() if _multiplies(operators[place].kind)}
        for anchor in multiplies:
            if self._kind(anchor) not in PRODUCTS:  # called after the end of what was fused
                for node in self._back_to_product(anchor, owner):
                    owner[node] = anchor
        ran = {anchor: place for place, anchor in anchors.items()}
        for index in range(len(self._nodes)):  # what follows a product was fused into it
            before = [owner[node] for node in self._inputs(index) if owner.get(node) in multiplies]
            if index not in owner and before and self._kind(index) not in PRODUCTS:
                owner[index] = max(before, key=ran.__getitem__)
        groups: dict[int, list[int]] = defaultdict(list)
        for index in sorted(owner):
            groups[owner[index]].append(index)
        return groups

    def _back_to_product(self, anchor: int, owner: Mapping[int, int]) -> list[int]:
        """What lies between the product that was fused and the anchor, the product included."""
        waiting, seen = [anchor], list[int]()
        while waiting:
            for node in self._inputs(waiting.pop()):
                if node in owner or node in seen:
                    continue
                seen.append(node)
                if self._kind(node) not in PRODUCTS:
                    waiting.append(node)
        return seen if any(self._kind(node) in PRODUCTS for node in seen) else []

    def _inputs(self, index: int) -> list[int]:
        """Nodes that make the inputs of this one."""
        return [self._maker[name] for name in self._nodes[index].input if name in self._maker]

    def _layer(self, operator: Operator, group: Sequence[int]) -> Layer:
        nodes = [self._nodes[index] for index in group]
        main = next((node for node in nodes if node.op_type in PRODUCTS), nodes[0])
        weight = self._weight(main) if main.op_type in PRODUCTS else None
        kinds = [str(node.op_type) for node in nodes if node.op_type not in FORMAT] or [str(main.op_type)]
        name, known = self._name(main, weight)
        stored = 0 if weight is None else _stored_bytes(weight)
        return Layer(
            name=name,
            kind=" + ".join(kinds),
            weighted=known,
            precision=_precision(operator),
            macs=_macs(operator, str(main.op_type), weight),
            moved_bytes=operator.moved_bytes + stored,
        )

    def _name(self, node: NodeProto, weight: TensorProto | None) -> tuple[str, bool]:
        """And whether it is a module's: exporters call parameters after their modules, or rewrite them."""
        tried = () if weight is None else (weight, self._bias_behind(node))
        for parameter in tried:
            if parameter is not None and (module := module_of(parameter.name)):
                return module, True
        return bare_name(node.name or node.output[0]), False

    def _bias_behind(self, node: NodeProto) -> TensorProto | None:
        """What is added to a product: linear layers are often written as two nodes."""
        for other in self._nodes:
            if other.op_type == "Add" and node.output[0] in other.input:
                return next(
                    (found for name in other.input if (found := self._behind(name)) is not None), None
                )
        return None

    def _weight(self, node: NodeProto) -> TensorProto | None:
        """The larger of the constants that a product takes."""
        places = [place for place in PRODUCTS[node.op_type] if place < len(node.input)]
        found = [weight for place in places if (weight := self._behind(node.input[place])) is not None]
        return max(found, key=lambda weight: prod(weight.dims), default=None)

    def _behind(self, name: str) -> TensorProto | None:
        """The weight that a tensor is, or that it was before it was written otherwise."""
        while name not in self._weights:
            maker = self._maker.get(name)
            if maker is None or self._kind(maker) not in FORMAT or not self._nodes[maker].input:
                return None
            name = self._nodes[maker].input[0]
        return self._weights[name]


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)


def _all_weights(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_weights(attribute.g)


def _multiplies(kind: str) -> bool:
    return any(word in kind for word in ("Conv", "Gemm", "MatMul"))


def _stored_bytes(weight: TensorProto) -> int:
    return prod(weight.dims) * int(helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize)


def _precision(operator: Operator) -> str:
    """In which numbers it computes; float16 files compute in float32 where the processor has nothing else."""
    integer = operator.kind.startswith(("Q", "DynamicQuantize")) or "Integer" in operator.kind
    kind = operator.outputs[0][0] if operator.outputs else ""
    if integer or kind in ("int8", "uint8"):
        return "int8"
    return {"float": "float32"}.get(kind, kind)


def _macs(operator: Operator, kind: str, weight: TensorProto | None) -> int:
    """As `workers.measures.macs` counts them, from the shapes of the call."""
    if kind not in PRODUCTS or not operator.outputs:
        return 0
    made = operator.outputs[0][1]
    if "Conv" in kind:
        if weight is None:
            return 0
        if kind == "ConvTranspose":
            return prod(operator.inputs[0][1]) // weight.dims[0] * prod(weight.dims)
        # Blocked layouts fill the channels up; what is computed for the filling does not count.
        channels = made[1] if operator.name.find("_nchwc") >= 0 else weight.dims[0]
        return prod(made) // channels * prod(weight.dims)
    if weight is not None:
        return prod(made) // made[-1] * prod(weight.dims)
    (_, left), (_, right) = operator.inputs[:2]
    both = prod(left[-2:]) * prod(right[-2:])
    return prod(made) * isqrt(both // max(1, prod(made[-2:])))
