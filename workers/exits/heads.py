"""What turns the features at a cut into logits, by the kind of features.

Heads are chains of plain layers, so that a graph with heads is saved, read and exported like any other.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from workers.base import ModelSpec
from workers.graph.shapes import values

Layout = Literal["channels_first", "channels_last", "tokens", "vector"]
HeadKind = Literal["auto", "linear", "conv"]

#: Maps with no more channels than this say too little when each is one mean: linear heads on 16 and 32
#: channels of an 8-layer ResNet got 61 and 82 % of Fashion-MNIST right, on a grid of means 91 and 93 %. So do
#: wider ones, if less: 96 channels of another network got 81 %, on a grid 89 %.
THIN, GRID = 64, 7
#: A linear layer takes no more than this many means, and after wider maps has no more than so many weights.
MOST_MEANS, MOST_WEIGHTS = 2048, 20_480
#: With fewer channels than this, a convolution before the grid is worth its time (91 -> 92 % on 16 channels).
VERY_THIN, WIDTH = 32, 32
#: What hands a map on with its channels where they were.
_LAYOUT_KEPT = ("add", "mul", "pad", "roll", "slice", "clone", "contiguous", "cat")


def heads_for(
    graph: GraphModule, cuts: Sequence[str], spec: ModelSpec, kind: HeadKind, seed: int
) -> dict[str, nn.Sequential]:
    """By the name of each cut a head with fresh weights that fits the features there."""
    known = values(graph, spec.preprocessing.shape)
    nodes = {node.name: node for node in graph.graph.nodes}
    return {
        cut: make_head(
            known[nodes[cut]].shape[1:],
            layout_of(graph, nodes[cut], known[nodes[cut]].dim()),
            spec.classes,
            kind,
            seed + index,
        )
        for index, cut in enumerate(cuts)
    }


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
        if kind == "conv" or (kind == "auto" and shape[0] < VERY_THIN):
            return _convolutional(shape, classes)
        return nn.Sequential(*_on_a_grid(shape, _side(shape[0], classes), classes))


def _side(channels: int, classes: int) -> int:
    """Of the grid of means."""
    most = MOST_MEANS if channels <= THIN else min(MOST_MEANS, MOST_WEIGHTS // classes)
    return max(1, min(GRID, math.isqrt(most // channels)))


def _convolutional(shape: torch.Size, classes: int) -> nn.Sequential:
    """One convolution at half the resolution, before the grid."""
    channels, *sides = shape
    coarse, pool = _pool(sides, 2 * GRID)
    strides = [2 if side > GRID else 1 for side in coarse]
    left = [math.ceil(side / stride) for side, stride in zip(coarse, strides, strict=True)]
    return nn.Sequential(
        pool,
        nn.Conv2d(channels, WIDTH, 3, (strides[0], strides[1]), 1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        *_on_a_grid((WIDTH, *left), GRID, classes),
    )


def _on_a_grid(shape: Sequence[int], side: int, classes: int) -> list[nn.Module]:
    """Means over a grid of the map, which keep where in the picture something was, and a linear layer."""
    channels, *sides = shape
    grid, pool = _pool(sides, side)
    return [pool, nn.Flatten(), nn.Linear(channels * math.prod(grid), classes)]


def _pool(sides: Sequence[int], most: int) -> tuple[list[int], nn.Module]:
    """Means over equal windows, at most so many in each direction; they overlap rather than leave a rest out.

    Not AdaptiveAvgPool2d, whose windows differ in size: ONNX has no such pooling.
    """
    grid = [min(side, most) for side in sides]
    strides = [side // count for side, count in zip(sides, grid, strict=True)]
    kernel = [side - (n - 1) * stride for side, n, stride in zip(sides, grid, strides, strict=True)]
    if max(kernel) == 1:
        return grid, nn.Identity()
    return grid, nn.AvgPool2d((kernel[0], kernel[1]), (strides[0], strides[1]))
