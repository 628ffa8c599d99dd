"""Remove whole channels, so that what is left is a smaller dense network."""

import copy
import dataclasses
import itertools
import math
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch_pruning as tp
from pydantic import Field
from torch import nn
from torch.fx import GraphModule

from workers.base import Candidate, Context, Family, Method, Progress
from workers.errors import StepFailed
from workers.graph.layer_roles import LAYERS, inner_layers, output_layers
from workers.measures.macs import count_macs

#: Shares of channels that are tried: 0, 1/256 … 255/256.
STEPS = 256
#: Largest difference of a logit, relative to the largest logit, that other orders of addition explain.
TOLERANCE = 1e-3
GROUP_SEARCH_SECONDS = 60.0
ACROSS_CHANNELS = (nn.LayerNorm, nn.GroupNorm)

#: A layer, torch-pruning's function that cuts it, and the channels that go.
Choice = tuple[nn.Module, Any, list[int]]


class StructuredPruning(Method):
    """Every layer loses the same share of its channels, those with the smallest group L2 norm first."""

    title: ClassVar[str] = "Structured pruning"
    family: ClassVar[Family] = "pruning"
    source: ClassVar[str] = (
        "Dependency graph and group importance: Fang et al. 2023, DepGraph (arXiv:2301.12900), section 3.2"
    )

    amount: float = Field(0.5, gt=0, le=0.95, description="Share of the multiply-accumulates to remove.")
    round_to: int = Field(
        8, ge=1, le=64, description="Widths become multiples of this; others are slow on most processors."
    )

    @property
    def left(self) -> Mapping[str, float]:
        return dict.fromkeys(("macs", "parameters", "size"), 1 - self.amount)

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed when there is no graph or nothing can be removed."""
        if model.graph is None:
            raise StepFailed(
                "structured_pruning", "an ONNX file cannot be pruned.", "Upload the model as a .pt2."
            )
        search = _Search(model, self, context)
        notes = []
        try:
            pruned, removed = search.run(ignored=list(output_layers(model.graph)))
        except _CannotFollow:
            # Attention and channel shuffles mix channels in ways the dependency graph cannot follow.
            inner = inner_layers(model.graph)
            ignored = [m for m in model.graph.modules() if isinstance(m, LAYERS) and m not in inner]
            notes.append(
                f"Only the {len(inner)} layers whose channels stay inside a block were narrowed; what the "
                "others are coupled to cannot be followed in this architecture."
            )
            try:
                pruned, removed = search.run(ignored=ignored)
            except _CannotFollow as second:
                raise StepFailed(
                    "structured_pruning",
                    f"the channels of this architecture cannot be followed ({second}).",
                    "Leave this step out.",
                ) from second
        if removed <= 0:
            raise StepFailed(
                "structured_pruning",
                f"no layer can become narrower at round_to={self.round_to}.",
                "Lower round_to, or leave this step out.",
            )
        notes.append(_reached(removed, self.amount))
        return dataclasses.replace(model, graph=pruned, notes=(*model.notes, *notes))


class _CannotFollow(Exception):
    """The dependency graph fails on this architecture."""


class _Search:
    """The smallest share of channels whose removal cuts the wanted share of multiply-accumulates."""

    def __init__(self, model: Candidate, settings: StructuredPruning, context: Context) -> None:
        assert model.graph is not None
        self.model, self.graph, self.settings, self.context = model, model.graph, settings, context
        self.macs = count_macs(model.graph, model.spec)

    def run(self, ignored: Sequence[nn.Module]) -> tuple[GraphModule, float]:
        """The pruned copy and the share of multiply-accumulates it lost. Raises _CannotFollow."""
        low, high = 0, STEPS - 1
        best = self._try(high, ignored)
        while best[1] >= self.settings.amount and high - low > 1:
            middle = (low + high) // 2
            pruned = self._try(middle, ignored)
            if pruned[1] >= self.settings.amount:
                best, high = pruned, middle
            else:
                low = middle
            self.context.tell(
                Progress(f"removing {middle / STEPS:.0%} of the channels", 1 - (high - low) / STEPS)
            )
        return best

    def _try(self, step: int, ignored: Sequence[nn.Module]) -> tuple[GraphModule, float]:
        names = {id(module): name for name, module in self.graph.named_modules()}
        graph = copy.deepcopy(self.graph).eval().requires_grad_(True)  # else nothing can be followed
        generator = torch.Generator().manual_seed(self.context.seed)
        sample = torch.randn(2, *self.model.spec.preprocessing.shape, generator=generator)
        try:
            with _deadline(GROUP_SEARCH_SECONDS):
                narrow(
                    graph,
                    sample,
                    share=step / STEPS,
                    round_to=self.settings.round_to,
                    ignored=[graph.get_submodule(names[id(module)]) for module in ignored],
                )
        except Exception as error:  # torch-pruning and the narrowed model fail with errors of every kind
            raise _CannotFollow(f"{type(error).__name__}: {str(error)[:120]}") from error
        return graph, 1 - count_macs(graph, self.model.spec) / self.macs


def narrow(
    graph: nn.Module, sample: torch.Tensor, *, share: float, round_to: int, ignored: list[nn.Module]
) -> None:
    """Remove `share` of the channels of every layer but the ignored ones, in place.

    Coupled layers lose the same channels. Widths become the nearest multiple of `round_to`, never zero.
    Raises ValueError when what is left does not compute what the whole network would without them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bare parameters such as layer scales are followed as we want
        dependencies = tp.DependencyGraph().build_dependency(graph, example_inputs=sample)
        chosen = list(_chosen(dependencies, share, round_to, ignored))
        groups = [dependencies.get_pruning_group(*choice) for choice in chosen]
        # Statistics over all channels change when some go; there is nothing to compare then.
        alone = [not any(isinstance(m, ACROSS_CHANNELS) for m in _modules(group)) for group in groups]
        for group in itertools.compress(groups, alone):
            _disconnect(group)
        with torch.no_grad():
            expected = graph(sample)
            _cut(dependencies, itertools.compress(chosen, alone))
            got = graph(sample)
            _cut(dependencies, itertools.compress(chosen, [not is_alone for is_alone in alone]))
            last = graph(sample)
    error = (got - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    if not error <= TOLERANCE or last.shape != expected.shape:
        raise ValueError("other channels were cut off than those that lead to the removed ones")


def _cut(dependencies: tp.DependencyGraph, chosen: Iterable[Choice]) -> None:
    for choice in chosen:
        group = dependencies.get_pruning_group(*choice)
        if dependencies.check_pruning_group(group):
            group.prune()


def _chosen(
    dependencies: tp.DependencyGraph, share: float, round_to: int, ignored: list[nn.Module]
) -> Iterator[Choice]:
    """For each group of coupled layers: one of them, how it is cut, and its least important channels."""
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    for group in dependencies.get_all_groups(ignored_layers=ignored, root_module_types=list(LAYERS)):
        root, function = group[0].dep.target.module, group[0].dep.handler
        width, parts = dependencies.get_out_channels(root), _channel_groups(group)
        keep = _kept(width, share, math.lcm(parts, round_to))
        if keep < width:
            scores = importance(group).view(parts, -1).mean(0)
            drop = scores.argsort()[: (width - keep) // parts]
            offsets = torch.arange(parts)[:, None] * (width // parts)
            yield root, function, (offsets + drop).flatten().tolist()


def _disconnect(group: Any) -> None:
    """Make the layers behind deaf to the channels that go; these weights are removed anyway."""
    for dependency, indices in group:
        if dependency.handler in (tp.prune_conv_in_channels, tp.prune_linear_in_channels):
            module = dependency.target.module
            weight = module.weight.data.unflatten(0, (getattr(module, "groups", 1), -1))
            channels, width = torch.tensor(indices), weight.shape[2]
            weight[channels // width, :, channels % width] = 0


def _modules(group: Any) -> list[nn.Module]:
    return [dependency.target.module for dependency, _ in group]


def _channel_groups(group: Any) -> int:
    """Into how many equal parts the channels fall that grouped layers must lose evenly."""
    parts = [1]
    for module in _modules(group):
        if isinstance(module, nn.GroupNorm):
            parts.append(module.num_groups)
        elif isinstance(module, nn.Conv2d) and module.groups != module.out_channels:
            parts.append(module.groups)
    return math.lcm(*parts)


def _kept(width: int, share: float, unit: int) -> int:
    return min(width, max(unit, round(width * (1 - share) / unit) * unit))


def _reached(removed: float, amount: float) -> str:
    if removed >= amount:
        return f"Removed {removed:.1%} of the multiply-accumulates (asked: at least {amount:.0%})."
    return f"Could remove only {removed:.1%} of the multiply-accumulates (asked: {amount:.0%})."


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`; torch-pruning's group search can run for ever.

    Works where signals do: in the main thread, where a job's process does its work.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: object) -> None:
        raise TimeoutError(f"the search for coupled layers took over {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    remaining = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *remaining)
        signal.signal(signal.SIGALRM, before)
