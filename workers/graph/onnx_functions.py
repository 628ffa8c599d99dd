"""Local functions of an ONNX file, written out: what they hide is then checked like everything else."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx.inliner
from onnx import ModelProto, NodeProto

from workers.errors import ModelRefused

MAX_NODES = 50_000
_FIX = "Export it again with torch.onnx.export(model.eval(), (x,), 'model.onnx', dynamo=True)."

Key = tuple[str, str, str]


def inlined(path: Path, model: ModelProto) -> ModelProto:
    """The model without local functions. Raises ModelRefused when they call themselves or grow too large."""
    if not model.functions:
        return model
    _Growth(path, model).check()
    try:
        flat = onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise _refused(path, f"cannot be written out ({str(error)[:160]})") from error
    if flat.functions:
        raise _refused(path, f"cannot be written out, such as {flat.functions[0].name[:80]!r}")
    return flat


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and, below them, those of their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from all_nodes(graph.node)


class _Growth:
    """How many nodes the functions become: forty that call each other twice would be 2^40."""

    def __init__(self, path: Path, model: ModelProto) -> None:
        self._path, self._main = path, model.graph.node
        self._bodies = {(f.domain, f.name, f.overload): f.node for f in model.functions}
        self._sizes: dict[Key, int] = {}
        self._open: set[Key] = set()

    def check(self) -> None:
        try:
            size = self._size(self._main)
        except RecursionError as error:
            raise _refused(self._path, "call one another too deeply") from error
        if size > MAX_NODES:
            raise _refused(self._path, f"become {size:,} operators; {MAX_NODES:,} are allowed")

    def _size(self, nodes: Iterable[NodeProto]) -> int:
        return sum(self._node(node) for node in all_nodes(nodes))

    def _node(self, node: NodeProto) -> int:
        key = (node.domain, node.op_type, node.overload)
        if key not in self._bodies:
            return 1
        if key in self._open:
            raise _refused(self._path, f"never end: {node.op_type[:80]!r} calls itself")
        if key not in self._sizes:
            self._open.add(key)
            self._sizes[key] = self._size(self._bodies[key])
            self._open.remove(key)
        return self._sizes[key]


def _refused(path: Path, what: str) -> ModelRefused:
    return ModelRefused(path.name, f"holds functions that {what}.", _FIX)
