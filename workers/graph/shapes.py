"""One pass over a program with tensors that have a shape and no data, so nothing is allocated.

A program is refused here, before it ever runs, when it would compute something absurdly large.
"""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node

from workers.errors import ModelRefused

MAX_TENSOR_BYTES = 1 << 30
#: Sizes are products of few sizes; Python's integers would grow until the memory is full.
_LARGEST_INT = 2**62


def ranks(module: GraphModule, shape: tuple[int, ...]) -> dict[Node, int]:
    """Number of dimensions of every intermediate tensor. shape: of one input, (C, H, W).

    Raises ModelRefused when one is larger than MAX_TENSOR_BYTES for a batch of two.
    """
    found = values(module, shape)
    return {node: value.dim() for node, value in found.items() if isinstance(value, torch.Tensor)}


def values(module: GraphModule, shape: tuple[int, ...], batch: int = 2) -> dict[Node, Any]:
    """What every node gives, tensors without their data and sizes as numbers; see `ranks`."""
    recorder = _Recorder(module)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        recorder.run(torch.empty(batch, *shape))
    return recorder.values


class _Recorder(Interpreter):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.values: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        for tensor in value if isinstance(value, tuple | list) else (value,):
            if isinstance(tensor, torch.Tensor):
                if tensor.numel() * tensor.element_size() > MAX_TENSOR_BYTES:
                    raise _too_large(n, f"a tensor of the shape {list(tensor.shape)} for a batch of two")
            elif isinstance(tensor, int) and abs(tensor) > _LARGEST_INT:
                raise _too_large(n, "a size of more than 62 bits")
        self.values[n] = value
        return value


def _too_large(node: Node, what: str) -> ModelRefused:
    return ModelRefused(
        "models/model.json",
        f"computes {what} in {node.name[:80]!r}.",
        "Use smaller pictures or fewer channels.",
    )
