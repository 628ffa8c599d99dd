"""Which channels go when a given share of them has to."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch

from workers.errors import StepFailed
from workers.graph.naming import no_such_layer
from workers.pruning.groups import Group

Scope = Literal["global", "uniform"]


def choose(
    groups: Sequence[Group],
    share: float,
    scope: Scope,
    round_to: int,
    fixed: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, list[int]]:
    """For the root of every group, the channels that go.

    fixed: the share of single groups, by root, whatever the others lose; of 0 nothing goes.
    uniform: every group loses `share` of its channels. global: `share` of all channels goes, wherever they
    matter least; a group's scores are divided by their mean, which makes groups comparable. Widths become the
    nearest multiple of `round_to`, never zero. Groups without scores stay whole.
    """
    judged = [group for group in groups if len(group.scores)]
    free = [group for group in judged if group.root not in fixed]
    kept = {group.root: group.width * (1 - fixed.get(group.root, share)) for group in judged}
    if scope == "global" and free:
        kept |= zip((group.root for group in free), _kept_globally(free, share), strict=True)
    return {group.root: group.channels(_weakest(group, kept[group.root], round_to)) for group in judged}


def by_root(groups: Sequence[Group], amounts: Mapping[str, float]) -> dict[str, float]:
    """Amounts by any layer of a group, as amounts by its root. Raises StepFailed."""
    roots = {layer: group.root for group in groups for layer in group.layers if len(group.scores)}
    found: dict[str, float] = {}
    for layer, amount in amounts.items():
        if layer not in roots:
            where = "structured_pruning: layer_amounts"
            raise no_such_layer(layer, roots, where=where, what="layer that can become narrower")
        if found.setdefault(roots[layer], amount) != amount:
            raise StepFailed(
                "structured_pruning: layer_amounts",
                f"{layer!r} must stay as wide as {roots[layer]!r}, and they are to lose different shares.",
                "Give one of them.",
            )
    return found


def _kept_globally(groups: Sequence[Group], share: float) -> list[int]:
    """Channels of each group that are not among the weakest `share` of all."""
    scores = [group.scores / group.scores.mean().clamp(min=1e-30) for group in groups]
    every = torch.cat([s.repeat_interleave(group.parts) for s, group in zip(scores, groups, strict=True)])
    stays = torch.ones(len(every))
    stays[every.argsort(stable=True)[: round(share * len(every))]] = 0
    return [int(part.sum()) for part in torch.split(stays, [group.width for group in groups])]


def _weakest(group: Group, width: float, round_to: int) -> torch.Tensor:
    """The slots that go so that about `width` channels stay; none where all are to stay."""
    unit = math.lcm(group.parts, round_to)
    keep = min(group.width, max(unit, round(width / unit) * unit)) if width < group.width else group.width
    return group.scores.argsort(stable=True)[: (group.width - keep) // group.parts]
