"""Replace layers by two or three thin ones that compute almost the same."""

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.flop_counter import FlopCounterMode

from workers.base import Candidate, Context, Family, Method, Progress
from workers.errors import StepFailed
from workers.factors.decompose import Layer, Ranks, can_decompose, decompose, energy_ranks, full_ranks
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

    rank_by: Literal["time", "energy", "ratio"] = Field(
        "time",
        description="How the rank of a layer is chosen: by timing it on the target (time), by how much of "
        "its weights is kept (energy), or as the same share everywhere (ratio).",
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
    only_faster: bool = Field(
        True,
        description="Time the layers on the target, and leave alone those that would not get faster. Without "
        "it, fewer multiply-accumulates are enough. Rank_by time always does.",
    )
    recalibrate: bool = Field(
        True, description="Take the statistics of BatchNorm anew, on training samples, without training."
    )

    @property
    def depends_on_target(self) -> bool:
        return self.only_faster or self.rank_by == "time"

    @property
    def left(self) -> Mapping[str, float | None]:
        return dict.fromkeys(("macs", "parameters", "size"))  # ranks are found out during the run

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
        notes = [reached, *work.notes()]
        if model.sparse:
            notes.append("The zeros that an earlier step put into the factorised layers are gone.")
        return dataclasses.replace(model, graph=graph.eval(), notes=(*model.notes, *notes))


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
        self.timed: dict[tuple[str, tuple[Ranks, ...]], list[float]] = {}

    def factorise(self, place: _Place) -> nn.Sequential | None:
        """The layers to put there; None where the one that is there is better."""
        if not can_decompose(place.layer):
            self.grouped.append(place.name)
            return None
        cheaper = self._cheaper(place)
        if not cheaper:
            self.dear.append(place.name)
            return None
        if not self.settings.depends_on_target:
            self.done.append(place.name)
            return next(iter(cheaper.values()))
        ratios = self._timed(place, cheaper)
        fast = [thin for thin, ratio in zip(cheaper.values(), ratios, strict=True) if ratio <= self._limit]
        if not fast:
            self.slow.append(f"{place.name} ({min(ratios):.2f})")
            return None
        self.done.append(place.name)
        return fast[0]

    def notes(self) -> Iterator[str]:
        for names, why in (
            (self.dear, "their parts would need as many multiply-accumulates"),
            (self.slow, f"their parts were timed at more than {self._limit:.2f} of their time"),
            (self.grouped, "their channels are in groups"),
        ):
            if names:
                yield f"Left alone, because {why}: {', '.join(names)}."

    @property
    def _limit(self) -> float:
        """Share of its time that a layer may still take."""
        return self.settings.time if self.settings.rank_by == "time" else 1.0

    def _cheaper(self, place: _Place) -> dict[Ranks, nn.Sequential]:
        """What can stand there with fewer multiply-accumulates, the largest ranks first."""
        made = {ranks: decompose(place.layer, ranks) for ranks in self._tried(place)}
        return {ranks: thin for ranks, thin in made.items() if place.macs(thin) < place.macs(place.layer)}

    def _timed(self, place: _Place, instead: Mapping[Ranks, nn.Sequential]) -> list[float]:
        key = (place.kind, tuple(instead))
        if key not in self.timed:
            self.timed[key] = latency_ratios([place.layer, *instead.values()], place.inputs, self.context)
        return self.timed[key]

    def _tried(self, place: _Place) -> list[Ranks]:
        settings = self.settings
        if settings.rank_by == "energy":
            return [self._rounded(place, energy_ranks(place.layer, settings.energy))]
        shares = TIMED_SHARES if settings.rank_by == "time" else (settings.ratio,)
        return list(dict.fromkeys(self._share(place, share) for share in shares))

    def _share(self, place: _Place, share: float) -> Ranks:
        return self._rounded(place, [share * rank for rank in full_ranks(place.layer)])

    def _rounded(self, place: _Place, ranks: Sequence[float]) -> Ranks:
        unit = self.settings.round_to
        return tuple(
            min(full, math.ceil(rank / unit) * unit)
            for rank, full in zip(ranks, full_ranks(place.layer), strict=True)
        )


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
