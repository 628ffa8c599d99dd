"""The smallest share of channels whose removal saves what was asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch.fx import GraphModule

from workers.base import ModelSpec, Progress
from workers.pruning.choosing import Scope, choose
from workers.pruning.costs import Cost
from workers.pruning.following import copied
from workers.pruning.groups import Group, cut


@dataclass(frozen=True)
class Narrowed:
    """removed: share of the cost that is gone, against the graph that the cost was made with."""

    graph: GraphModule
    removed: float


@dataclass(frozen=True)
class _Attempts:
    """Cuts of one graph; many shares round to the same widths."""

    graph: GraphModule
    sample: torch.Tensor
    cost: Cost
    tried: dict[str, Narrowed] = field(default_factory=dict)

    def of(self, dropped: Mapping[str, list[int]]) -> Narrowed:
        key = repr(dropped)
        if key not in self.tried:
            narrowed = copied(self.graph)
            cut(narrowed, self.sample, dropped)
            self.tried[key] = Narrowed(narrowed, self.cost.removed(narrowed))
        return self.tried[key]


def sample_input(spec: ModelSpec, seed: int) -> torch.Tensor:
    """(2, C, H, W) of noise, to follow channels with."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *spec.preprocessing.shape, generator=generator)


def narrow(
    graph: GraphModule,
    sample: torch.Tensor,
    groups: Sequence[Group],
    cost: Cost,
    amount: float,
    *,
    scope: Scope,
    round_to: int,
    tell: Callable[[Progress], None],
    fixed: Mapping[str, float] = MappingProxyType({}),
) -> Narrowed | None:
    """A copy of `graph` with as few channels removed as save `amount`, or with all that can go.

    fixed: the share that single groups lose, by root; with an amount of 0 only they do.
    None when not a single channel can go. Raises CannotFollow when a cut does not pass its comparison.
    """

    def chosen(step: int) -> dict[str, list[int]]:
        return choose(groups, step / cost.steps, scope, round_to, fixed)

    attempts = _Attempts(graph, sample, cost)
    low, high = 0, cost.steps - 1 if amount > 0 else 0
    if not any(chosen(high).values()):
        return None
    best = attempts.of(chosen(high))
    while best.removed >= amount and high - low > 1:
        middle = (low + high) // 2
        tell(Progress(f"removing {middle / cost.steps:.0%} of the channels", 1 - (high - low) / cost.steps))
        found = attempts.of(chosen(middle))
        if found.removed >= amount:
            best, high = found, middle
        else:
            low = middle
    return best
