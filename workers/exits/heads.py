"""What turns the features at a cut into logits, by the kind of features.

Heads are chains of plain layers, so that a graph with heads is saved, read and exported like any other.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from workers.base import ModelSpec
from workers.graph.shapes import values

Layout = Literal["channels_first", "channels_last", "tokens", "vector"]
HeadKind = Literal["auto", "linear", "conv"]

#: Features with fewer channels than this say too little when they are averaged (METHODS: 57-62 % of 85 %).
THIN = 64
#: A convolutional head looks at maps of about this side, and keeps a grid of GRID x GRID of what it finds.
SIDE, GRID, WIDTH = 14, 4, 32


#: What hands a map on with its channels where they were.
_LAYOUT_KEPT = ("add", "mul", "pad", "roll", "slice", "clone", "contiguous", "cat")


def head_for(graph: GraphModule, cut: Node, spec: ModelSpec, kind: HeadKind, seed: int) -> nn.Sequential:
    """A head with fresh weights that fits the features at a cut."""
    features = values(graph, spec.preprocessing.shape)[cut]
    return make_head(features.shape[1:], layout_of(graph, cut, features.dim()), spec.classes, kind, seed)


def layout_of(graph: GraphModule, cut: Node, dimensions: int) -> Layout:
    """Which dimension of the features (N, ...) holds the channels: the layer that reads a map tells."""
    if dimensions < 4:
        return "vector" if dimensions == 2 else "tokens"
    waiting = list(cut.users)
    while waiting:
        node = waiting.pop(0)
        layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            return "channels_last"
        name = getattr(getattr(node.target, "_schema", None), "name", "").removeprefix("aten::")
        if name in _LAYOUT_KEPT:
            waiting += node.users
    return "channels_first"


class Mean(nn.Module):
    """(N, ..., C) -> (N, C)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=list(range(1, features.dim() - 1)))


def make_head(shape: torch.Size, layout: Layout, classes: int, kind: HeadKind, seed: int) -> nn.Sequential:
    """(N, *shape) -> (N, classes), with fresh weights. shape: of the features, without the batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if layout == "vector":
            return nn.Sequential(nn.Linear(shape[0], classes))
        if layout in ("tokens", "channels_last"):
            return nn.Sequential(nn.LayerNorm(shape[-1]), Mean(), nn.Linear(shape[-1], classes))
        if kind == "conv" or (kind == "auto" and shape[0] <= THIN):
            return _convolutional(shape, classes)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape[0], classes))


def _convolutional(shape: torch.Size, classes: int) -> nn.Sequential:
    """One convolution, and where in the picture it found what: a coarse grid instead of one mean."""
    channels, *sides = shape
    width = max(WIDTH, channels)
    strides = [max(1, round(side / SIDE)) for side in sides]
    left = [math.ceil(side / stride) for side, stride in zip(sides, strides, strict=True)]
    pools = [max(1, side // GRID) for side in left]
    grid = math.prod((side - pool) // pool + 1 for side, pool in zip(left, pools, strict=True))
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, (strides[0], strides[1]), 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AvgPool2d((pools[0], pools[1])),
        nn.Flatten(),
        nn.Linear(width * grid, classes),
    )
