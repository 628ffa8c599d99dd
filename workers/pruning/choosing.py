"""Which channels go when a given share of them has to."""

import math
from collections.abc import Sequence
from typing import Literal

import torch

from workers.pruning.groups import Group

Scope = Literal["global", "uniform"]


def choose(groups: Sequence[Group], share: float, scope: Scope, round_to: int) -> dict[str, list[int]]:
    """For the root of every group, the channels that go.

    uniform: every group loses `share` of its channels. global: `share` of all channels goes, wherever they
    matter least; a group's scores are divided by their mean, which makes groups comparable. Widths become the
    nearest multiple of `round_to`, never zero. Groups without scores stay whole.
    """
    judged = [group for group in groups if len(group.scores)]
    kept = _kept_globally(judged, share) if scope == "global" else [g.width * (1 - share) for g in judged]
    return {
        group.root: group.channels(_weakest(group, width, math.lcm(group.parts, round_to)))
        for group, width in zip(judged, kept, strict=True)
    }


def _kept_globally(groups: Sequence[Group], share: float) -> list[int]:
    """Channels of each group that are not among the weakest `share` of all."""
    scores = [group.scores / group.scores.mean().clamp(min=1e-30) for group in groups]
    every = torch.cat([s.repeat_interleave(group.parts) for s, group in zip(scores, groups, strict=True)])
    stays = torch.ones(len(every))
    stays[every.argsort(stable=True)[: round(share * len(every))]] = 0
    return [int(part.sum()) for part in torch.split(stays, [group.width for group in groups])]


def _weakest(group: Group, width: float, unit: int) -> torch.Tensor:
    """The slots that go so that about `width` channels stay."""
    keep = min(group.width, max(unit, round(width / unit) * unit))
    return group.scores.argsort(stable=True)[: (group.width - keep) // group.parts]
