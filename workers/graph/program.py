"""From an archive's written program to a `torch.fx` graph that does exactly what was written.

Parameters and buffers become attributes, every operator a call of itself. What comes out computes the
original's numbers but cannot be trained (dropout and BatchNorm are frozen); `modules.py` goes on from here.
"""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from workers.errors import ModelRefused
from workers.graph.archive import Archive, checked_name
from workers.graph.operators import read_argument, resolve

MAX_NODES = 50_000
_FIX = "Export a module whose forward takes one tensor and returns one tensor of logits."


def as_written(archive: Archive) -> GraphModule:
    """The program as a graph module in evaluation form. Raises ModelRefused."""
    try:
        return _Reader(archive).read()
    except (KeyError, ValueError, TypeError, AttributeError, StopIteration) as error:
        raise ModelRefused(
            "models/model.json", f"is not a well-formed program ({error!r:.200}).", "Export the model again."
        ) from error


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
            raise ModelRefused("models/model.json", f"has {len(written['nodes']):,} operators.", "Use fewer.")
        self._inputs()
        for node in written["nodes"]:
            self._node(node)
        self.graph.output(self._output())
        self.graph.eliminate_dead_code(is_impure_node=_has_effect)
        self.graph.lint()
        return GraphModule(self.root, self.graph)

    def _inputs(self) -> None:
        users = []
        states = []
        for spec in self.module["signature"]["input_specs"]:
            ((kind, value),) = spec.items()
            if kind == "user_input":
                users.append(value["arg"]["as_tensor"]["name"])
            elif kind == "parameter":
                states.append((value["arg"]["name"], value["parameter_name"], self.archive.parameters))
            elif kind == "buffer":
                states.append((value["arg"]["name"], value["buffer_name"], self.archive.buffers))
            elif kind == "tensor_constant":
                states.append((value["arg"]["name"], value["tensor_constant_name"], self.archive.buffers))
            else:
                raise ModelRefused("models/model.json", f"takes an input of the kind {kind[:80]!r}.", _FIX)
        if len(users) != 1:
            raise ModelRefused("models/model.json", f"takes {len(users)} inputs.", _FIX)
        self.values[users[0]] = self.graph.placeholder("input")
        parameters: dict[int, nn.Parameter] = {}
        for argument, name, tensors in states:
            tensor = tensors[name]
            if tensors is self.archive.parameters:
                if tensor.is_floating_point():
                    tensor = parameters.setdefault(id(tensor), nn.Parameter(tensor))
                self._attach(name, tensor)
            else:
                self._attach(name, tensor)
            self.values[argument] = self.graph.get_attr(name)

    def _attach(self, name: str, tensor: torch.Tensor) -> None:
        *path, last = checked_name(name).split(".")
        owner = self.root
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
            if not isinstance(owner, nn.Module):
                raise ValueError(f"{name} lies inside a tensor")
        if hasattr(owner, last):
            raise ValueError(f"{name} is there twice or is a reserved name")
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(last, tensor)
        else:
            owner.register_buffer(last, tensor)

    def _node(self, written: Mapping[str, Any]) -> None:
        target = resolve(written["target"])
        schema = getattr(target, "_schema", None)
        by_keyword = (
            {argument.name for argument in schema.arguments if argument.kwarg_only} if schema else set()
        )
        args, kwargs = [], {}
        for argument in written["inputs"]:
            value = read_argument(argument["arg"], self.values)
            if argument["name"] in by_keyword or (schema and argument.get("kind") == 2):
                kwargs[checked_name(argument["name"])] = value
            else:
                args.append(value)
        node = self.graph.call_function(target, tuple(args), kwargs)
        outputs = [_output_names(output) for output in written["outputs"]]
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
            raise ModelRefused("models/model.json", f"returns {len(outputs)} values.", _FIX)
        return self.values[outputs[0]["arg"]["as_tensor"]["name"]]


def _output_names(written: Mapping[str, Any]) -> str | list[str] | None:
    ((kind, value),) = written.items()
    if kind in ("as_tensor",):
        return checked_name(value["name"])
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        name: str | None = value.get("as_name")
        return name
    if kind == "as_tensors":
        return [checked_name(item["name"]) for item in value]
    if kind == "as_none":
        return None
    raise ValueError(f"an output of the kind {kind[:80]!r}")


def _has_effect(node: Node) -> bool:
    """In-place operators change a tensor that others read, so they stay even when nobody reads them."""
    if node.op in ("placeholder", "output"):
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable
