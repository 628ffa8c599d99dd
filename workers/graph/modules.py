"""From a program as written to ordinary modules that train, prune and export like any model.

`torch.export` freezes what `nn.Module`s do differently in training: dropout is off and BatchNorm uses its
running statistics. Turning each aten call that owns weights, and each activation, back into its module
brings that back, with the same numbers in evaluation.
"""

import copy
import operator
from collections import Counter

import torch
from torch import nn
from torch.fx import GraphModule, Node

from workers.graph.layers import ACTIVATIONS, OWNERS, Call, NotAModule
from workers.graph.shapes import ranks

_IN_PLACE = {f"{name}_" for name in ACTIVATIONS} | {"add_", "mul_", "sub_", "div_", "clamp_"}
#: What may give out the memory of its input under another name.
_VIEWS = frozenset(
    """view reshape permute transpose swapaxes movedim select slice narrow squeeze unsqueeze expand expand_as
    chunk split split_with_sizes unbind unflatten flatten unfold t detach alias contiguous getitem to type_as
    einsum""".split()
)


def to_modules(written: GraphModule, shape: tuple[int, ...]) -> GraphModule:
    """A trainable graph of modules with the same numbers in evaluation mode; returned in that mode.

    written: the program as read; left as it is. shape: of one input, (C, H, W).
    """
    source = copy.deepcopy(written)
    graph = source.graph
    rank = ranks(source, shape)
    made: dict[tuple[str, ...], str] = {}
    counts: Counter[str] = Counter()
    for node in list(graph.nodes):
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        _out_of_place(node)
        name = _name(node)
        build = OWNERS.get(name) or ACTIVATIONS.get(name)
        if build is None:
            continue
        try:
            module = build(Call(source, node, rank))
        except NotAModule:
            continue
        if module is not None:
            counts[name] += 1
            dimensions = rank[node]
            rank[_replace(source, node, module, f"{name}_{counts[name]}", made)] = dimensions
    graph.eliminate_dead_code()
    source.delete_all_unused_submodules()
    _drop_unused_states(source)
    graph.lint()
    source.recompile()
    return source.eval()


def _name(node: Node) -> str:
    """aten name without namespace and overload; `operator` functions keep theirs."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.removeprefix("aten::") if schema else getattr(node.target, "__name__", "")


def _out_of_place(node: Node) -> None:
    """`y = relu_(x)` becomes `y = relu(x)`, and whoever read x afterwards reads y."""
    name = _name(node)
    if name not in _IN_PLACE or not isinstance(node.args[0], Node) or _shares_memory(node.args[0], node):
        return
    changed = node.args[0]
    plain = getattr(torch.ops.aten, name.removesuffix("_"))
    node.target = getattr(plain, node.target._overloadname)  # type: ignore[union-attr]
    changed.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node and user > node)


def _shares_memory(value: Node, writer: Node) -> bool:
    """True when a write to `value` could be seen under another name, so that its order must be kept."""
    if any(_name(user) in _VIEWS for user in value.users if user is not writer):
        return True
    while _name(value) in _VIEWS:
        value = value.args[0]  # type: ignore[assignment]
        if len(value.users) > 1:
            return True
    return value.op == "get_attr"


def _replace(
    root: GraphModule, node: Node, module: nn.Module, name: str, made: dict[tuple[str, ...], str]
) -> Node:
    """Call `module` instead; a layer that was used twice becomes one module called twice."""
    states = [str(a.target) for a in node.args[1:] if isinstance(a, Node) and a.op == "get_attr"]
    key = (repr(module), *states)
    if not states or key not in made:
        made[key] = _free_name(root, states, name)
        root.add_submodule(made[key], module)
    with root.graph.inserting_before(node):
        call = root.graph.call_module(made[key], (node.args[0],))
    node.replace_all_uses_with(call)
    root.graph.erase_node(node)
    return call


def _free_name(root: nn.Module, states: list[str], name: str) -> str:
    """`layer1.conv1` for the owner of `layer1.conv1.weight`, if it owns nothing else; else a new name."""
    if states:
        owner = states[0].rpartition(".")[0]
        if owner and _owned(root, owner) <= set(states):
            return owner
        name = states[0].removesuffix(".weight")
    while _exists(root, name):
        name += "_layer"
    return name


def _owned(root: nn.Module, path: str) -> set[str]:
    """Everything below the bare holder at `path`; the path itself where a module stands there already."""
    holder = root.get_submodule(path)
    if type(holder) is not nn.Module:
        return {path}
    return {
        f"{path}.{name}" for name in (*dict(holder.named_children()), *holder._parameters, *holder._buffers)
    }


def _exists(root: nn.Module, path: str) -> bool:
    try:
        operator.attrgetter(path)(root)
    except AttributeError:
        return False
    return True


def _drop_unused_states(root: GraphModule) -> None:
    used = {str(node.target) for node in root.graph.nodes if node.op == "get_attr"}
    modules = {str(node.target) for node in root.graph.nodes if node.op == "call_module"}
    for path, module in list(root.named_modules()):
        if path in modules or any(path.startswith(f"{name}.") for name in modules):
            continue
        for states in (module._parameters, module._buffers):
            for name in list(states):
                if (f"{path}.{name}" if path else name) not in used:
                    del states[name]
