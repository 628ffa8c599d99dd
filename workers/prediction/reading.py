"""The plan of a network, read from its graph."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from workers.base import ModelSpec
from workers.errors import StepFailed
from workers.factors.decompose import can_decompose, full_ranks, kept_energies
from workers.graph.layer_roles import LAYERS
from workers.importance import IMPORTANCES, OfWeights
from workers.importance.l2 import L2
from workers.measures.macs import count_macs
from workers.prediction.plan import ENERGIES, Layer, Plan, Width
from workers.pruning.following import copied, follow
from workers.pruning.groups import CannotFollow, Group, find_groups
from workers.pruning.search import sample_input

#: Of a group's importances, so many are kept.
SCORES = 64
#: Of runs, where they leave it as it is; with another one, random scores fall otherwise.
SEED = 0
#: Singular values of larger matrices take too long.
MOST_RANKS = 2048


def read_plan(graph: GraphModule, spec: ModelSpec) -> tuple[Plan, tuple[Group, ...]]:
    """The plan, and the groups as pruning finds them; none for an architecture that cannot be followed."""
    sample = sample_input(spec, seed=0)
    try:
        groups = follow(graph, sample, L2().of_weights(graph, SEED), frozenset()).groups
    except StepFailed:
        groups = ()
    groups = tuple(group for group in groups if len(group.scores))
    plan = Plan(
        layers=_layers(graph, sample[:1], groups),
        groups=_widths(graph, sample, groups),
        macs=count_macs(graph, spec),
        parameters=sum(parameter.numel() for parameter in graph.parameters()),
    )
    return plan, groups


def _widths(graph: GraphModule, sample: torch.Tensor, groups: Sequence[Group]) -> dict[str, Width]:
    others: dict[str, dict[str, tuple[float, ...]]] = {group.root: {} for group in groups}
    for name, kind in IMPORTANCES.items():
        if issubclass(kind, OfWeights) and kind is not L2 and groups:
            for group in _judged(graph, sample, groups, kind()):
                others[group.root][name] = _course(group.scores)
    return {
        group.root: Width(
            width=group.width,
            parts=group.parts,
            layers=group.layers,
            scores=_course(group.scores),
            others=others[group.root],
        )
        for group in groups
    }


def _judged(
    graph: GraphModule, sample: torch.Tensor, groups: Sequence[Group], importance: OfWeights
) -> list[Group]:
    """The same groups by another importance; none where it judges none of them."""
    roots = {layer for group in groups for layer in group.layers}
    try:
        scores = importance.of_weights(graph, SEED)
        found = find_groups(copied(graph), sample, scores, roots=roots)
    except (StepFailed, CannotFollow):
        return []
    known = {group.root for group in groups}
    return [group for group in found if group.root in known]


def _course(scores: torch.Tensor) -> tuple[float, ...]:
    """Relative to their mean, weakest first."""
    if not len(scores):
        return ()
    relative = (scores / scores.mean().clamp(min=1e-30)).numpy()
    if len(relative) > SCORES:
        relative = np.quantile(relative, (np.arange(SCORES) + 0.5) / SCORES)
    return tuple(map(float, np.sort(relative)))


def _layers(graph: GraphModule, sample: torch.Tensor, groups: Sequence[Group]) -> tuple[Layer, ...]:
    """In the order in which they are called first."""
    names = {module: name for name, module in graph.named_modules() if isinstance(module, LAYERS)}
    outputs: dict[nn.Module, int] = {}
    places: dict[nn.Module, float] = {}

    def seen(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        outputs[module] = outputs.get(module, 0) + output.numel()
        if isinstance(module, nn.Conv2d):
            places[module] = given[0][:, 0].numel() / output[:, 0].numel()

    hooks = [module.register_forward_hook(seen) for module in names]
    with torch.no_grad():
        graph(sample)
    for hook in hooks:
        hook.remove()
    root_of = {layer: group.root for group in groups for layer in group.layers}
    found = []
    for module, numel in outputs.items():
        assert isinstance(module, nn.Conv2d | nn.Linear)
        name = names[module]
        conv = isinstance(module, nn.Conv2d)
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        found.append(
            Layer(
                name=name,
                inputs=module.in_channels if isinstance(module, nn.Conv2d) else module.in_features,
                outputs=module.out_channels if conv else module.out_features,
                macs=numel * math.prod(module.weight.shape[1:]),
                weights=module.weight.numel(),
                group=root_of.get(name),
                reads={g.root: g.readers[name] for g in groups if name in g.readers},
                depthwise=depthwise,
                thin=can_decompose(module),
                places=places.get(module, 1.0),
                energies=_energy_shares(module) if can_decompose(module) else (),
            )
        )
    return tuple(found)


def _energy_shares(layer: nn.Conv2d | nn.Linear) -> tuple[tuple[float, ...], ...]:
    """Of each rank, see `Layer.energies`."""
    if max(full_ranks(layer)) > MOST_RANKS:
        return ()
    return tuple(
        tuple(min(1.0, (int((kept < energy - 1e-9).sum()) + 1) / len(kept)) for energy in ENERGIES)
        for kept in kept_energies(layer)
    )
