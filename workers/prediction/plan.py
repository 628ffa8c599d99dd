"""How a network's layers hang together: which widths change with one another, and what every layer costs.

Enough to know the shapes that a recipe leads to, without the network.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from workers.base import Frozen

#: Widths that are timed, and so known, are multiples of this.
ROUND_TO = 8
#: Shares of the squared singular values for which ranks are kept.
ENERGIES = (0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)


class Layer(Frozen):
    """A convolution or linear layer. macs: of one sample. weights: of the layer alone.

    group: whose width it gives, by the root; None where the width never changes. reads: how many of its
    inputs are of which group. depthwise: every output reads the input of the same number. thin: it can be
    factorised. places: of its input, for each of its output. energies: for each of its ranks, what share of
    it keeps the shares `ENERGIES` of the squared singular values; none where that was not looked up.
    """

    name: str
    inputs: int
    outputs: int
    macs: int
    weights: int
    group: str | None = None
    reads: dict[str, int] = Field(default_factory=dict)
    depthwise: bool = False
    thin: bool = False
    places: float = 1.0
    energies: tuple[tuple[float, ...], ...] = ()

    @property
    def full_ranks(self) -> tuple[int, ...]:
        """As `workers.factors.decompose` has them: of a kernel (inputs, outputs), of a matrix one."""
        kernel = self.weights > self.inputs * self.outputs
        return (self.inputs, self.outputs) if kernel else (min(self.inputs, self.outputs),)


class Width(Frozen):
    """A group of layers that must be as wide. parts: into how many equal parts its channels fall.

    scores: importance of its channels by the L2 norm, relative to their mean, weakest first; of many channels
    only so many that their course can be seen. others: likewise by every other importance that the weights
    alone tell; none where it does not judge this group.
    """

    width: int
    parts: int = 1
    layers: tuple[str, ...] = ()
    scores: tuple[float, ...] = (1.0,)
    others: dict[str, tuple[float, ...]] = Field(default_factory=dict)

    def scores_by(self, importance: str) -> tuple[float, ...]:
        """By the L2 norm where this importance needs more than the weights."""
        return self.others.get(importance, self.scores)


#: Of every group, the share of its channels that is left.
Shares = Mapping[str, float]
NOTHING_GONE: Shares = MappingProxyType({})


class Plan(Frozen):
    """macs: of the whole network, with what is no layer. parameters: likewise."""

    layers: tuple[Layer, ...]
    groups: dict[str, Width]
    macs: int
    parameters: int

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def inputs_of(self, layer: Layer, left: Shares) -> float:
        """Channels that it reads."""
        return layer.inputs - sum(count * (1 - left.get(group, 1.0)) for group, count in layer.reads.items())

    def outputs_of(self, layer: Layer, left: Shares) -> float:
        return layer.outputs * left.get(layer.group or "", 1.0)

    def kept_of(self, layer: Layer, left: Shares) -> float:
        """Share of a layer's multiply-accumulates and weights that is left."""
        outputs = self.outputs_of(layer, left) / layer.outputs
        return outputs if layer.depthwise else outputs * self.inputs_of(layer, left) / layer.inputs

    def macs_left(self, left: Shares) -> float:
        """Share of the multiply-accumulates that is left."""
        gone = sum(layer.macs * (1 - self.kept_of(layer, left)) for layer in self.layers)
        return 1 - gone / max(self.macs, 1)

    def parameters_left(self, left: Shares) -> float:
        gone = sum(layer.weights * (1 - self.kept_of(layer, left)) for layer in self.layers)
        return 1 - gone / max(self.parameters, 1)

    def narrowed(
        self,
        share: float,
        round_to: int,
        *,
        before: Shares = NOTHING_GONE,
        scope: Literal["global", "uniform"] = "uniform",
        importance: str = "l2",
        keep: frozenset[str] = frozenset(),
        upwards: bool = False,
    ) -> dict[str, float]:
        """What is left of every group when `share` of the channels goes, rounded as pruning does.

        before: what is left already. keep: layers that stay as they are, and with them all that hang together
        with them. As in `workers.pruning.choosing`; upwards: as for narrower students.
        """
        free = {
            root: group
            for root, group in self.groups.items()
            if group.scores_by(importance) and not keep & self.touched(root)
        }
        weakest = _weakest(free, share, importance) if scope == "global" else dict.fromkeys(free, share)
        found = dict(before)
        for root, group in free.items():
            width = group.width * before.get(root, 1.0)
            found[root] = _rounded(group, width, width * (1 - weakest[root]), round_to, upwards) / group.width
        return found

    def has_odd_widths(self, left: Shares) -> bool:
        return self.odd_share(left) > 0

    def odd_share(self, left: Shares) -> float:
        """Share of the groups that were cut to a width that is no multiple of `ROUND_TO`."""
        cut = {root: round(group.width * left.get(root, 1.0)) for root, group in self.groups.items()}
        odd = [root for root, width in cut.items() if width % ROUND_TO and width < self.groups[root].width]
        return len(odd) / max(len(cut), 1)

    def tells(self, importance: str) -> bool:
        """False where more than the weights decide which channels are the weakest."""
        return importance == "l2" or any(importance in group.others for group in self.groups.values())

    def touched(self, root: str) -> frozenset[str]:
        """Layers that a group's channels come from or go to."""
        readers = (layer.name for layer in self.layers if root in layer.reads)
        return frozenset((*self.groups[root].layers, *readers))


def _rounded(group: Width, width: float, kept: float, round_to: int, upwards: bool) -> float:
    unit = math.lcm(group.parts, round_to)
    units = math.ceil(round(kept / unit, 6)) if upwards else round(kept / unit)
    return min(width, max(unit, units * unit))


def _weakest(groups: Mapping[str, Width], share: float, importance: str) -> dict[str, float]:
    """Of every group, the share of its channels that is among the weakest `share` of all."""
    scores = {root: group.scores_by(importance) for root, group in groups.items()}
    each = [(score, groups[root].width / len(course)) for root, course in scores.items() for score in course]
    left = float(round(share * sum(group.width for group in groups.values())))
    limit = 0.0
    for score, channels in sorted(each):
        if left < channels - 1e-6:
            break
        limit, left = score, left - channels
    return {root: sum(score <= limit for score in course) / len(course) for root, course in scores.items()}
