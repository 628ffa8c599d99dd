"""Replace layers by two or three thin ones that compute almost the same."""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.flop_counter import FlopCounterMode

from workers.base import Candidate, Context, Family, Method, Progress
from workers.errors import StepFailed
from workers.factors.decompose import Layer, can_decompose, decompose, energy_ranks, full_ranks
from workers.factors.timing import latency_ratios
from workers.graph.layer_roles import LAYERS
from workers.graph.replacing import replace_layer, replaceable_layers
from workers.measures.macs import count_macs
from workers.training.statistics import recalibrate

#: Shares of the full rank that are timed.
TIMED_SHARES = (0.75, 0.5, 0.375, 0.25, 0.125)


class LowRank(Method):
    """Linear layers and 1x1 convolutions become two thin layers (SVD), other convolutions three (Tucker-2).

    Layers that would not get cheaper are left alone and named.
    """

    title: ClassVar[str] = "Low rank"
    family: ClassVar[Family] = "low_rank"
    source: ClassVar[str] = (
        "SVD (Eckart & Young 1936); Tucker-2 (Kim et al. 2016, arXiv:1511.06530, section 3.1)"
    )

    rank_by: Literal["energy", "ratio", "time"] = Field(
        "energy",
        description="How the rank of a layer is chosen: by what its weights lose (energy), as the same share "
        "everywhere (ratio), or by timing the layer on the target (time).",
    )
    energy: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="With rank_by energy: share of the squared singular values that every layer keeps.",
    )
    ratio: float = Field(
        0.5, gt=0, lt=1, description="With rank_by ratio: share of its full rank that every layer keeps."
    )
    time: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="With rank_by time: share of its measured time that a layer may still take; the largest "
        "rank that gets there is used.",
    )
    round_to: int = Field(8, ge=1, le=64, description="Ranks are rounded up to a multiple of this.")
    recalibrate: bool = Field(
        True, description="Take the statistics of BatchNorm anew, on training samples, without training."
    )

    @property
    def depends_on_target(self) -> bool:
        return self.rank_by == "time"

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed when there is no graph, or when no layer gets cheaper."""
        if model.graph is None:
            raise StepFailed("low_rank", "an ONNX file cannot be factorised.", "Upload the model as a .pt2.")
        graph = copy.deepcopy(model.graph).eval()
        work = _Work(self, context)
        places = _places(graph, context)
        for index, place in enumerate(places):
            context.tell(Progress(f"factorising {place.name}", index / len(places)))
            thin = work.factorise(place)
            if thin is not None:
                replace_layer(graph, place.name, thin)
        if not work.done:
            raise StepFailed(
                "low_rank",
                f"no layer gets cheaper at {self.rank_by}={getattr(self, self.rank_by):g}, "
                f"round_to={self.round_to}.",
                f"Lower {self.rank_by} or round_to, or leave this step out.",
            )
        if self.recalibrate:
            recalibrate(graph, context)
        before, after = count_macs(model.graph, model.spec), count_macs(graph, model.spec)
        reached = (
            f"Factorised {len(work.done)} of {len(places)} layers; "
            f"{1 - after / before:.1%} of the multiply-accumulates are gone."
        )
        return dataclasses.replace(model, graph=graph.eval(), notes=(*model.notes, reached, *work.notes()))


@dataclass(frozen=True)
class _Place:
    """A layer, and the largest input that reaches it in one call of the model."""

    name: str
    layer: Layer
    inputs: Tensor

    def macs(self, instead: nn.Module) -> int:
        """Of another module at this place."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            instead(self.inputs)
        return int(counter.get_total_flops()) // 2

    @property
    def kind(self) -> str:
        """Layers of one kind take the same time, whatever their weights."""
        return f"{self.layer} {tuple(self.inputs.shape)}"


class _Work:
    """Decides layer by layer, and remembers what became of each."""

    def __init__(self, settings: LowRank, context: Context) -> None:
        self.settings, self.context = settings, context
        self.done: list[str] = []
        self.grouped: list[str] = []
        self.dear: list[str] = []
        self.slow: list[str] = []
        self.timed: dict[str, tuple[int, ...] | None] = {}

    def factorise(self, place: _Place) -> nn.Sequential | None:
        """The layers to put there, if they are cheaper."""
        if not can_decompose(place.layer):
            self.grouped.append(place.name)
            return None
        ranks = self._ranks(place)
        thin = None if ranks is None else self._if_cheaper(place, ranks)
        if thin is None:
            (self.dear if ranks else self.slow).append(place.name)
        else:
            self.done.append(place.name)
        return thin

    def notes(self) -> Iterator[str]:
        for names, why in (
            (self.dear, "their parts would need as many multiply-accumulates"),
            (self.slow, f"no smaller rank was timed at {self.settings.time:.0%} of their time or less"),
            (self.grouped, "their channels are in groups"),
        ):
            if names:
                yield f"Left alone, because {why}: {', '.join(names)}."

    def _ranks(self, place: _Place) -> tuple[int, ...] | None:
        if self.settings.rank_by == "energy":
            return self._rounded(place, energy_ranks(place.layer, self.settings.energy))
        if self.settings.rank_by == "ratio":
            return self._share(place, self.settings.ratio)
        if place.kind not in self.timed:
            self.timed[place.kind] = self._timed(place)
        return self.timed[place.kind]

    def _timed(self, place: _Place) -> tuple[int, ...] | None:
        """The largest ranks that were measured to be fast enough."""
        tried = dict.fromkeys(self._share(place, share) for share in TIMED_SHARES)
        cheaper = {ranks: thin for ranks in tried if (thin := self._if_cheaper(place, ranks))}
        if not cheaper:
            return None
        ratios = latency_ratios([place.layer, *cheaper.values()], place.inputs, self.context)
        fast = (r for r, ratio in zip(cheaper, ratios, strict=True) if ratio <= self.settings.time)
        return next(fast, None)

    def _share(self, place: _Place, share: float) -> tuple[int, ...]:
        return self._rounded(place, [share * rank for rank in full_ranks(place.layer)])

    def _rounded(self, place: _Place, ranks: Sequence[float]) -> tuple[int, ...]:
        unit = self.settings.round_to
        return tuple(
            min(full, math.ceil(rank / unit) * unit)
            for rank, full in zip(ranks, full_ranks(place.layer), strict=True)
        )

    def _if_cheaper(self, place: _Place, ranks: tuple[int, ...]) -> nn.Sequential | None:
        thin = decompose(place.layer, ranks)
        return thin if place.macs(thin) < place.macs(place.layer) else None


def _places(graph: GraphModule, context: Context) -> list[_Place]:
    """Every convolution and linear layer, in the order in which they are called first."""
    layers = {name: m for name, m in replaceable_layers(graph).items() if isinstance(m, LAYERS)}
    inputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[module] = max(inputs.get(module, arguments[0]), arguments[0], key=Tensor.numel)

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers.values()]
    samples, _ = next(iter(context.data.batches("validation", context.target.batch)))
    with torch.no_grad():
        graph(samples)
    for hook in hooks:
        hook.remove()
    return [_Place(name, layer, inputs[layer]) for name, layer in layers.items()]
