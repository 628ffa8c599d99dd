"""What becomes of a layer that is factorised: its ranks, and what the thin layers cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.prediction.plan import ENERGIES, Layer

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Thin:
    """Instead of a layer: share of its time, and multiply-accumulates and weights."""

    time: float
    macs: float
    weights: float


def rounded_ranks(layer: Layer, shares: Sequence[float], unit: int) -> Ranks:
    """shares: of each full rank. As `workers.methods.low_rank` rounds."""
    return tuple(
        min(full, math.ceil(round(share * full, 6) / unit) * unit)
        for full, share in zip(layer.full_ranks, shares, strict=True)
    )


def energy_shares(layer: Layer, energy: float) -> list[float]:
    """Of each full rank, the share that keeps this share of the squared singular values."""
    return [float(np.interp(energy, ENERGIES, shares)) for shares in layer.energies]


def cost_of(layer: Layer, ranks: Ranks) -> tuple[float, float]:
    """Multiply-accumulates and weights of the thin layers (Kim et al. 2016, arXiv:1511.06530, section 3.2).

    A side of a kernel with its full rank gets no layer of its own.
    """
    ends = layer.macs / layer.weights  # places of the output
    if len(ranks) == 1:
        weights = ranks[0] * (layer.inputs + layer.outputs)
        return ends * weights, weights
    first, last = ranks
    core = first * last * layer.weights / (layer.inputs * layer.outputs)
    before = 0 if first == layer.inputs else layer.inputs * first
    behind = 0 if last == layer.outputs else layer.outputs * last
    return ends * (layer.places * before + core + behind), core + before + behind
