"""Which module an aten call came from: the calls that own weights, and the activations.

`torch.export` freezes what modules do differently in training; these builders undo that. Knows single calls
only, not the graph around them.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx import Node

Build = Callable[["Call"], nn.Module | None]


class NotAModule(Exception):
    """This call has no module of its own and stays a call."""


class Call:
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

        Raises NotAModule when a computed tensor is given: such a call stays a call.
        """
        node = self.arguments[name]
        if node is None:
            return None
        if not isinstance(node, Node) or node.op != "get_attr":
            raise NotAModule(name)
        return operator.attrgetter(str(node.target))(self._root)

    @property
    def rank(self) -> int:
        """Number of dimensions of the first argument."""
        return self._ranks[self.node.args[0]]  # type: ignore[index]


# --- calls that own weights ------------------------------------------------------------------------


def _convolution(kind: type[nn.Module]) -> Build:
    def build(call: Call) -> nn.Module:
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


def _linear(call: Call) -> nn.Module:
    weight, bias = call.state("weight"), call.state("bias")
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _own(module, weight=weight, bias=bias)


def _batch_norm(call: Call) -> nn.Module:
    weight, mean = call.state("weight"), call.state("running_mean")
    if mean is None and weight is None:
        raise NotAModule("features")
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


def _layer_norm(call: Call) -> nn.Module:
    weight, bias = call.state("weight"), call.state("bias")
    module = nn.LayerNorm(
        list(call["normalized_shape"]),
        eps=call["eps"],
        elementwise_affine=weight is not None,
        bias=bias is not None,
    )
    return _own(module, weight=weight, bias=bias)


def _group_norm(call: Call) -> nn.Module:
    weight = call.state("weight")
    if weight is None:
        raise NotAModule("weight")
    module = nn.GroupNorm(call["num_groups"], len(weight), eps=call["eps"])
    return _own(module, weight=weight, bias=call.state("bias"))


def _prelu(call: Call) -> nn.Module:
    weight = call.state("weight")
    return _own(nn.PReLU(weight.numel()), weight=weight)


def _embedding(call: Call) -> nn.Module:
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


def _hardtanh(call: Call) -> nn.Module:
    low, high = call["min_val"], call["max_val"]
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _feature_dropout(call: Call) -> nn.Module:
    kind = {3: nn.Dropout1d, 5: nn.Dropout3d}.get(call.rank, nn.Dropout2d)
    return kind(call["p"])


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
    "feature_dropout": _feature_dropout,
}
