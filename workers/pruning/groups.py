"""Channels that can only go together, found by torch-pruning's dependency graph, and the cut itself.

The dependency graph guesses how channels run through reshapes. Every cut is therefore compared with the
same network whose removed channels were disconnected instead.
"""

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.fx import GraphModule

from workers.graph.deadline import deadline

#: torch-pruning's search runs for ever on some architectures.
SEARCH_SECONDS = 60.0
#: Largest difference of a logit, relative to the largest logit, that other orders of addition explain.
TOLERANCE = 1e-3
_OUT = (tp.prune_conv_out_channels, tp.prune_linear_out_channels, tp.prune_depthwise_conv_out_channels)
_IN = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)


class CannotFollow(Exception):
    """The dependency graph fails on this architecture, or cuts other channels than it says."""


class TookTooLong(CannotFollow):
    """It did not come to an end."""


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        with deadline(SEARCH_SECONDS):
            yield
    except TimeoutError as error:
        raise TookTooLong(f"the search for coupled channels {error}") from error


@dataclass(frozen=True)
class Group:
    """The output channels of one or more layers that must be as many.

    root: a layer of the group; its channels name those of all. layers: all whose width changes.
    parts: the channels fall into so many equal parts that lose evenly, as grouped convolutions need.
    scores: (width / parts,) importance of a channel, the mean over parts; empty when no layer has any.
    readers: the layers that read the channels, with how many of their inputs these are.
    """

    root: str
    layers: tuple[str, ...]
    width: int
    parts: int
    scores: Tensor
    readers: Mapping[str, int] = field(default_factory=dict)

    def channels(self, slots: Tensor) -> list[int]:
        """The channels at `slots`, 0 … width / parts - 1, of every part."""
        offsets = torch.arange(self.parts)[:, None] * (self.width // self.parts)
        return [int(channel) for channel in (offsets + slots).flatten()]


@_in_time()
def find_groups(
    graph: GraphModule,
    sample: Tensor,
    scores: Mapping[str, Tensor],
    *,
    roots: Collection[str],
    keep: Collection[str] = (),
) -> list[Group]:
    """Groups made of layers in `roots` alone that touch no layer in `keep`; no weight may be frozen.

    Raises CannotFollow when not a single group could be followed in time.
    """
    names = {module: name for name, module in graph.named_modules()}
    groups, failures, seen = [], [], set()
    dependencies = _follow(graph, sample)
    for module, name in names.items():
        if name not in roots or name in seen or module not in dependencies.module2node:
            continue
        try:
            found = _whole_group(dependencies, module)
            cut = {names[d.target.module] for d, _ in found if d.handler in _OUT}
            touched = {names[m] for m in _modules(found) if m in names}
            seen |= cut
            if cut <= set(roots) and not touched & set(keep):
                groups.append(_group(found, name, cut, names, scores))
        except CannotFollow as error:
            failures.append(error)
    if failures and not groups:
        raise failures[0]
    return groups


@_in_time()
def cut(graph: GraphModule, sample: Tensor, dropped: Mapping[str, Sequence[int]]) -> None:
    """Remove the channels `dropped` of each root, and what depends on them, in place.

    Raises CannotFollow when what is left does not compute what the whole network does without them, or
    when that takes too long; `graph` is then spoilt.
    """
    with _failures_told():
        dependencies = _follow(graph, sample)
        chosen = [(graph.get_submodule(root), channels) for root, channels in dropped.items() if channels]
        for root, channels in chosen:
            _disconnect(_part_of_group(dependencies, root, channels))
        with torch.no_grad(), _channels_kept_apart(graph):
            expected = graph(sample)
            for root, channels in chosen:
                group = _part_of_group(dependencies, root, channels)
                if dependencies.check_pruning_group(group):
                    group.prune()
            got = graph(sample)
    scale = expected.abs().max()
    if scale == 0:
        raise CannotFollow("all logits are zero, so that a cut cannot be compared")
    if not (got - expected).abs().max() <= TOLERANCE * scale:
        raise CannotFollow("other channels were cut off than those that lead to the removed ones")


@contextmanager
def _failures_told() -> Iterator[None]:
    """torch-pruning and narrowed models fail with errors of every kind; a deadline passes."""
    try:
        yield
    except (TimeoutError, CannotFollow):
        raise
    except Exception as error:
        raise CannotFollow(f"{type(error).__name__}: {str(error)[:120]}") from error


def _follow(graph: GraphModule, sample: Tensor) -> tp.DependencyGraph:
    with warnings.catch_warnings(), _failures_told():
        warnings.simplefilter("ignore")  # bare parameters such as layer scales are followed as we want
        return tp.DependencyGraph().build_dependency(graph, example_inputs=sample)


def _whole_group(dependencies: tp.DependencyGraph, layer: nn.Module) -> Any:
    with _failures_told():
        return _part_of_group(dependencies, layer, range(dependencies.get_out_channels(layer)))


def _part_of_group(dependencies: tp.DependencyGraph, layer: nn.Module, channels: Sequence[int]) -> Any:
    handler = dependencies.get_pruner_of_module(layer).prune_out_channels
    return dependencies.get_pruning_group(layer, handler, list(channels))


def _group(
    found: Any,
    root: str,
    layers: Collection[str],
    names: Mapping[nn.Module, str],
    scores: Mapping[str, Tensor],
) -> Group:
    width, parts = len(found[0].idxs), _parts(found)
    total, judged = torch.zeros(width), False
    for item in found:
        module, handler = item.dep.target.module, item.dep.handler
        score = scores.get(f"{names.get(module)}.weight")
        if score is None or handler not in (*_OUT, *_IN) or None in item.root_idxs:
            continue
        with _failures_told():  # channels that are followed wrongly may not exist
            per_channel = _of_outputs(score) if handler in _OUT else _of_inputs(score, module)
            total.index_add_(0, torch.tensor(item.root_idxs), per_channel[item.idxs])
        judged = True
    mean = total.view(parts, -1).mean(0)
    readers = {names[item.dep.target.module]: len(item.idxs) for item in found if item.dep.handler in _IN}
    return Group(root, tuple(sorted(layers)), width, parts, mean if judged else torch.empty(0), readers)


def _of_outputs(score: Tensor) -> Tensor:
    return score.flatten(1).sum(1)


def _of_inputs(score: Tensor, module: nn.Module) -> Tensor:
    groups = getattr(module, "groups", 1)
    return score.reshape(groups, -1, *score.shape[1:]).sum(1).reshape(groups * score.shape[1], -1).sum(1)


def _disconnect(group: Any) -> None:
    """Make the layers behind deaf to the channels that go; these weights are removed anyway."""
    for dependency, indices in group:
        if dependency.handler in _IN:
            module = dependency.target.module
            weight = module.weight.data.unflatten(0, (getattr(module, "groups", 1), -1))
            channels, width = torch.tensor(indices), weight.shape[2]
            weight[channels // width, :, channels % width] = 0


@contextmanager
def _channels_kept_apart(graph: nn.Module) -> Iterator[None]:
    """Normalization over all channels only scales and shifts meanwhile.

    Its statistics change when channels go, and then there would be nothing to compare.
    """
    with ExitStack() as hooks:
        for module in graph.modules():
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):
                handle = module.register_forward_hook(_scaled_and_shifted)
                hooks.callback(handle.remove)
        yield


def _scaled_and_shifted(module: nn.Module, inputs: tuple[Tensor], normalized: Tensor) -> Tensor:
    shape = [-1, *[1] * (normalized.dim() - 2)] if isinstance(module, nn.GroupNorm) else [-1]
    value = inputs[0]
    for change, parameter in ((torch.mul, module.weight), (torch.add, module.bias)):
        if parameter is not None:
            value = change(value, parameter.view(shape))  # type: ignore[operator]
    return value


def _modules(group: Any) -> list[nn.Module]:
    return [dependency.target.module for dependency, _ in group]


def _parts(group: Any) -> int:
    """Into how many equal parts the channels fall that grouped layers must lose evenly."""
    parts = [1]
    for module in _modules(group):
        if isinstance(module, nn.GroupNorm):
            parts.append(module.num_groups)
        elif isinstance(module, nn.Conv2d) and module.groups != module.out_channels:
            parts.append(module.groups)
    return math.lcm(*parts)
