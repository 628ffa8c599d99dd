"""From a program as written to ordinary modules that train, prune and export like any model.

`torch.export` freezes what `nn.Module`s do differently in training: dropout is off and BatchNorm uses its
running statistics. Turning each aten call that owns weights, and each activation, back into its module
brings that back, with the same numbers in evaluation.
"""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

Build = Callable[["_Call"], nn.Module | None]


class _NotAModule(Exception):
    """This call has no module of its own and stays a call."""


class _Call:
    """One aten call: its node and its arguments by their schema names, with defaults filled in."""

    def __init__(self, root: nn.Module, node: Node, ranks: dict[Node, int]) -> None:
        self.node, self._root, self._ranks = node, root, ranks
        schema = node.target._schema  # type: ignore[union-attr]
        self.arguments: dict[str, Any] = {a.name: a.default_value for a in schema.arguments}
        self.arguments.update(
            zip((a.name for a in schema.arguments if not a.kwarg_only), node.args, strict=False)
        )
        self.arguments.update(node.kwargs)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def state(self, name: str) -> Any:
        """The parameter or buffer given as this argument; None when none is given.

        Raises _NotAModule when a computed tensor is given: such a call stays a call.
        """
        node = self.arguments[name]
        if node is None:
            return None
        if not isinstance(node, Node) or node.op != "get_attr":
            raise _NotAModule(name)
        return _get(self._root, str(node.target))

    @property
    def rank(self) -> int:
        """Number of dimensions of the first argument."""
        return self._ranks[self.node.args[0]]  # type: ignore[index]


# --- calls that own weights ------------------------------------------------------------------------


def _convolution(kind: type[nn.Module]) -> Build:
    def build(call: _Call) -> nn.Module:
        weight, bias = call.state("weight"), call.state("bias")
        spatial = weight.dim() - 2
        module = kind(
            weight.shape[1] * call["groups"],
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=_spread(call["stride"], spatial),
            padding=_spread(call["padding"], spatial),
            dilation=_spread(call["dilation"], spatial),
            groups=call["groups"],
            bias=bias is not None,
            device="meta",
        )
        return _own(module, weight=weight, bias=bias)

    return build


def _spread(value: Any, dimensions: int) -> Any:
    """aten writes one number for all dimensions where modules want one each; "same" stays."""
    if isinstance(value, str):
        return value
    return tuple(value) * dimensions if len(value) == 1 else tuple(value)


def _linear(call: _Call) -> nn.Module:
    weight, bias = call.state("weight"), call.state("bias")
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _own(module, weight=weight, bias=bias)


def _batch_norm(call: _Call) -> nn.Module:
    weight, mean = call.state("weight"), call.state("running_mean")
    if mean is None and weight is None:
        raise _NotAModule("features")
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[call.rank]
    module = kind(
        len(weight if mean is None else mean),
        eps=call["eps"],
        momentum=call["momentum"],
        affine=weight is not None,
        track_running_stats=mean is not None,
    )
    return _own(
        module,
        weight=weight,
        bias=call.state("bias"),
        running_mean=mean,
        running_var=call.state("running_var"),
    )


def _layer_norm(call: _Call) -> nn.Module:
    weight, bias = call.state("weight"), call.state("bias")
    module = nn.LayerNorm(
        list(call["normalized_shape"]),
        eps=call["eps"],
        elementwise_affine=weight is not None,
        bias=bias is not None,
    )
    return _own(module, weight=weight, bias=bias)


def _group_norm(call: _Call) -> nn.Module:
    weight = call.state("weight")
    if weight is None:
        raise _NotAModule("weight")
    module = nn.GroupNorm(call["num_groups"], len(weight), eps=call["eps"])
    return _own(module, weight=weight, bias=call.state("bias"))


def _prelu(call: _Call) -> nn.Module:
    weight = call.state("weight")
    return _own(nn.PReLU(weight.numel()), weight=weight)


def _embedding(call: _Call) -> nn.Module:
    weight = call.state("weight")
    index = call["padding_idx"]
    module = nn.Embedding(
        weight.shape[0], weight.shape[1], padding_idx=index if index >= 0 else None, device="meta"
    )
    return _own(module, weight=weight)


def _own(module: nn.Module, **states: torch.Tensor | None) -> nn.Module:
    """Put the program's own tensors (not copies: tied weights stay tied) into a fresh module."""
    for name, tensor in states.items():
        if tensor is not None:
            if isinstance(module._parameters.get(name), nn.Parameter) and not isinstance(
                tensor, nn.Parameter
            ):
                tensor = nn.Parameter(tensor)  # a frozen weight that was exported as a buffer
            setattr(module, name, tensor)
    return module


#: aten name -> builder of the module, its first argument being the input.
OWNERS: dict[str, Build] = {
    "conv1d": _convolution(nn.Conv1d),
    "conv2d": _convolution(nn.Conv2d),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "prelu": _prelu,
    "embedding": _embedding,
}


# --- calls without weights -------------------------------------------------------------------------


def _hardtanh(call: _Call) -> nn.Module:
    low, high = call["min_val"], call["max_val"]
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


#: In-place variants (`relu_`) become the plain module: exits and hooks need the input unharmed.
ACTIVATIONS: dict[str, Build] = {
    "relu": lambda _: nn.ReLU(),
    "relu6": lambda _: nn.ReLU6(),
    "hardtanh": _hardtanh,
    "leaky_relu": lambda call: nn.LeakyReLU(call["negative_slope"]),
    "elu": lambda call: nn.ELU(call["alpha"]) if (call["scale"], call["input_scale"]) == (1, 1) else None,
    "silu": lambda _: nn.SiLU(),
    "mish": lambda _: nn.Mish(),
    "gelu": lambda call: nn.GELU(call["approximate"]),
    "hardswish": lambda _: nn.Hardswish(),
    "hardsigmoid": lambda _: nn.Hardsigmoid(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "tanh": lambda _: nn.Tanh(),
    "dropout": lambda call: nn.Dropout(call["p"]),
    "feature_dropout": lambda call: nn.Dropout2d(call["p"]),
}
_IN_PLACE = {f"{name}_" for name in ACTIVATIONS} | {"add_", "mul_", "sub_", "div_", "clamp_"}
_VIEWS = frozenset(
    """view reshape permute transpose swapaxes movedim select slice narrow squeeze unsqueeze expand expand_as
    chunk split split_with_sizes unbind unflatten flatten unfold t detach alias contiguous getitem""".split()
)


def to_modules(written: GraphModule, shape: tuple[int, ...]) -> GraphModule:
    """A trainable graph of modules with the same numbers in evaluation mode; returned in that mode.

    written: the program as read; left as it is. shape: of one input, (C, H, W).
    """
    source = copy.deepcopy(written)
    graph = source.graph
    ranks = _ranks(source, shape)
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
            module = build(_Call(source, node, ranks))
        except _NotAModule:
            continue
        if module is not None:
            counts[name] += 1
            _replace(source, node, module, f"{name}_{counts[name]}", made, ranks)
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


def _ranks(module: GraphModule, shape: tuple[int, ...]) -> dict[Node, int]:
    """Dimensions of every intermediate tensor, from a pass over tensors without data."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    ranks: dict[Node, int] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                ranks[n] = value.dim()
            return value

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        Recorder(module).run(mode.from_tensor(torch.zeros(2, *shape)))
    return ranks


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
    return value.op in ("placeholder", "get_attr")


def _replace(
    root: GraphModule,
    node: Node,
    module: nn.Module,
    name: str,
    made: dict[tuple[str, ...], str],
    ranks: dict[Node, int],
) -> None:
    """Call `module` instead; a layer that was used twice becomes one module called twice."""
    states = [str(a.target) for a in node.args[1:] if isinstance(a, Node) and a.op == "get_attr"]
    key = (repr(module), *states)
    if not states or key not in made:
        made[key] = _free_name(root, states[0] if states else name)
        root.add_submodule(made[key], module)
    with root.graph.inserting_before(node):
        call = root.graph.call_module(made[key], (node.args[0],))
    node.replace_all_uses_with(call)
    ranks[call] = ranks[node]
    root.graph.erase_node(node)


def _free_name(root: nn.Module, name: str) -> str:
    """`layer1.conv1.weight` -> `layer1.conv1`; other names get a suffix until nothing stands there."""
    path = name.removesuffix(".weight")
    while True:
        try:
            taken = _get(root, path)
        except AttributeError:
            return path
        if type(taken) is nn.Module:
            return path  # the bare holder of this layer's weights
        path += "_layer"


def _get(root: nn.Module, path: str) -> Any:
    value: Any = root
    for part in path.split("."):
        value = getattr(value, part)
    return value


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
