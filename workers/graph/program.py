"""From an archive's written program to a `torch.fx` graph that does exactly what was written.

Parameters and buffers become attributes, every operator a call of itself. What comes out computes the
original's numbers in evaluation mode but cannot be trained (dropout and BatchNorm are frozen); `modules.py`
goes on from here.
"""

import keyword
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from workers.errors import ModelRefused
from workers.graph.archive import MODEL, Archive, checked_name
from workers.graph.operators import DTYPES, read_argument, resolve

MAX_NODES = 10_000
_FIX = "Export a module whose forward takes one tensor and returns one tensor of logits."
# Set to False or 0 where a program was exported in training mode: what we read is evaluation.
_TRAINING = {"train": False, "training": False, "use_input_stats": False, "dropout_p": 0.0}


def input_shape(archive: Archive) -> tuple[int | None, int, int, int]:
    """(N, C, H, W) of the one input; N is None where the batch is dynamic. Raises ModelRefused."""
    try:
        module = archive.program["graph_module"]
        meta = module["graph"]["tensor_values"][_user_input(module["signature"])]
        sizes = [size.get("as_int") for size in meta["sizes"]]
        dtype = DTYPES.get(meta["dtype"])
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise _malformed(error) from error
    if dtype is not torch.float32:
        raise ModelRefused(
            MODEL,
            f"takes an input of {dtype or 'an unknown number format'}.",
            "Export model.float() instead.",
        )
    fixed = all(isinstance(size, int) and 1 <= size <= 4096 for size in sizes[2:])
    if len(sizes) != 4 or sizes[1] not in (1, 3) or not fixed:
        raise ModelRefused(
            MODEL,
            f"takes an input of the shape {sizes[:8]} (None: dynamic).",
            "Paredown takes pictures (N, C, H, W) with C = 1 or 3 and fixed H and W up to 4096.",
        )
    return sizes[0], sizes[1], sizes[2], sizes[3]


def as_written(archive: Archive) -> GraphModule:
    """The program as a graph module in evaluation form. Raises ModelRefused."""
    try:
        return _Reader(archive).read()
    except (LookupError, ValueError, TypeError, AttributeError, StopIteration) as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> ModelRefused:
    return ModelRefused(MODEL, f"is not a well-formed program ({error!r:.200}).", "Export the model again.")


def _user_input(signature: Mapping[str, Any]) -> str:
    users = [spec["user_input"]["arg"] for spec in signature["input_specs"] if "user_input" in spec]
    if len(users) != 1 or "as_tensor" not in users[0]:
        raise ModelRefused(MODEL, f"takes {len(users)} inputs (kinds: {[*users[0]] if users else []}).", _FIX)
    return str(users[0]["as_tensor"]["name"])


class _Reader:
    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.module = archive.program["graph_module"]
        self.root = nn.Module()
        self.graph = Graph()
        self.values: dict[str, Node] = {}

    def read(self) -> GraphModule:
        written = self.module["graph"]
        if len(written["nodes"]) > MAX_NODES:
            raise ModelRefused(
                MODEL, f"has {len(written['nodes']):,} operators; {MAX_NODES:,} are allowed.", "Use fewer."
            )
        self._inputs()
        for node in written["nodes"]:
            self._node(node)
        self.graph.output(self._output())
        self.graph.eliminate_dead_code(is_impure_node=_has_effect)
        self.graph.lint()
        return GraphModule(self.root, self.graph)

    def _inputs(self) -> None:
        self.values[_user_input(self.module["signature"])] = self.graph.placeholder("input")
        tied: dict[int, Node] = {}  # the first name stands for all, so that names stay when written again
        for spec in self.module["signature"]["input_specs"]:
            ((kind, value),) = spec.items()
            if kind == "user_input":
                continue
            if kind not in ("parameter", "buffer", "tensor_constant"):
                raise ModelRefused(MODEL, f"takes an input of the kind {kind[:80]!r}.", _FIX)
            name = value[f"{kind}_name"]
            tensor = (self.archive.parameters if kind == "parameter" else self.archive.buffers)[name]
            if id(tensor) not in tied:
                trained = kind == "parameter" and tensor.is_floating_point()
                path = self._attach(name, nn.Parameter(tensor) if trained else tensor)
                tied[id(tensor)] = self.graph.get_attr(path)
            self.values[value["arg"]["name"]] = tied[id(tensor)]

    def _attach(self, name: str, tensor: torch.Tensor) -> str:
        """Put the tensor where its name says; return the path it got."""
        *path, last = (_attribute(part) for part in checked_name(name).split("."))
        owner = self.root
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
            if not isinstance(owner, nn.Module):
                raise ValueError(f"{name} lies inside a tensor")
        if hasattr(owner, last):
            raise ValueError(f"{name} is there twice")
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(last, tensor)
        else:
            owner.register_buffer(last, tensor)
        return ".".join([*path, last])

    def _node(self, written: Mapping[str, Any]) -> None:
        target = resolve(written["target"])
        given = [
            (argument["name"], read_argument(argument["arg"], self.values)) for argument in written["inputs"]
        ]
        if schema := getattr(target, "_schema", None):
            args, kwargs = _bound(schema, dict(given))
        else:
            args, kwargs = [value for _, value in given], {}
        outputs = [_output_names(output) for output in written["outputs"]]
        if _counts_batches(target, args):
            self.values[str(outputs[0])] = args[0]
            return
        node = self.graph.call_function(_namesake(target), tuple(args), kwargs)
        node.target = target
        if len(outputs) == 1 and isinstance(outputs[0], str):
            self.values[outputs[0]] = node
            return
        names = outputs[0] if len(outputs) == 1 and isinstance(outputs[0], list) else outputs
        for index, name in enumerate(names):
            if isinstance(name, str):
                self.values[name] = self.graph.call_function(operator.getitem, (node, index))

    def _output(self) -> Node:
        outputs = [
            spec["user_output"] for spec in self.module["signature"]["output_specs"] if "user_output" in spec
        ]
        if len(outputs) != 1 or "as_tensor" not in outputs[0]["arg"]:
            raise ModelRefused(MODEL, f"returns {len(outputs)} values.", _FIX)
        return self.values[outputs[0]["arg"]["as_tensor"]["name"]]


def _attribute(part: str) -> str:
    """`class` and `graph` cannot be attributes of a graph module; they get an underscore."""
    return f"{part}_" if keyword.iskeyword(part) or hasattr(GraphModule, part) else part


def _bound(schema: Any, given: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by position, and by name where the operator takes them by name only; all in evaluation."""
    names = {argument.name for argument in schema.arguments}
    if not given.keys() <= names:
        raise ValueError(f"{schema.name} takes no argument {sorted(given.keys() - names)[:3]}")
    # Without running statistics, normalization uses those of the batch in evaluation too.
    if given.get("running_mean", given.get("train")) is not None or "dropout_p" in given:
        given.update({name: value for name, value in _TRAINING.items() if name in given})
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    while positional and positional[-1].name not in given:
        positional.pop()
    args = []
    for argument in positional:
        if argument.name not in given and not argument.has_default_value():
            raise ValueError(f"{schema.name} needs {argument.name}")
        args.append(given.pop(argument.name, argument.default_value))
    return args, given


def _namesake(target: Any) -> Any:
    """Whose name a node gets: `add_` is written again as `add`, and its node is to be found by that name."""
    name = getattr(getattr(target, "_schema", None), "name", "").removeprefix("aten::")
    plain = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(plain, target._overloadname, target) if plain else target


def _counts_batches(target: Any, args: list[Any]) -> bool:
    """BatchNorm exported in training mode counts its batches; the rebuilt module does that itself."""
    name = getattr(getattr(target, "_schema", None), "name", "")
    counter = args[0] if args and isinstance(args[0], Node) else None
    return (
        name == "aten::add_"
        and counter is not None
        and counter.op == "get_attr"
        and str(counter.target).endswith("num_batches_tracked")
    )


def _output_names(written: Mapping[str, Any]) -> str | list[str] | None:
    ((kind, value),) = written.items()
    if kind == "as_tensor":
        return str(value["name"])
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return value.get("as_name")  # type: ignore[no-any-return]
    if kind == "as_tensors":
        return [str(item["name"]) for item in value]
    if kind == "as_none":
        return None
    raise ValueError(f"an output of the kind {kind[:80]!r}")


def _has_effect(node: Node) -> bool:
    """In-place operators change a tensor that others read, so they stay even when nobody reads them."""
    if node.op in ("placeholder", "output"):
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable
