"""Set single weights to zero, those that matter least."""

import copy
import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from workers.base import Candidate, Context, Family, Method, Progress
from workers.errors import StepFailed
from workers.graph.layer_roles import layer_weights
from workers.importance import IMPORTANCES, ImportanceId
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.rounds import counted_on
from workers.training.settings import TrainingSettings
from workers.training.zeros import zeros_kept


class UnstructuredPruning(TrainingSettings, Method):
    """The least important weights of convolutions and linear layers become zero; training steps after this
    one keep them so.
    """

    title: ClassVar[str] = "Unstructured pruning"
    family: ClassVar[Family] = "pruning"
    source: ClassVar[str] = (
        "Han et al. 2015 (arXiv:1506.02626), section 3; schedule: Zhu & Gupta 2017 (arXiv:1710.01878), "
        "equation 1; N:M: Zhou et al. 2021 (arXiv:2102.04010), section 3"
    )
    caution: ClassVar[str] = (
        "Zeros make the model no faster: runtimes for dense weights compute them like any other weight. What "
        "gets smaller is the compressed file."
    )

    amount: float = Field(
        0.5, gt=0, le=0.99, description="Share of the weights that become zero. Not used with a pattern."
    )
    pattern: Literal["none", "2:4", "1:4", "4:8", "2:8"] = Field(
        "none",
        description="N:M leaves N of every M weights that follow each other along the input channels, as "
        "sparse tensor cores take them.",
    )
    scope: Literal["global", "layer"] = Field(
        "global",
        description="Whether weights compete in the whole model, so that some layers lose more, or every "
        "layer loses the same share. Not used with a pattern.",
    )
    importance: ImportanceId = Field("l1", description="What tells which weights matter least.")
    pace: Literal["one_shot", "cubic"] = Field(
        "one_shot",
        description="All at once and without training, or in several steps, large ones first, with training "
        "after each.",
    )
    steps: int = Field(4, ge=2, le=100, description="Steps of the cubic schedule.")
    epochs: int = Field(
        1,
        ge=1,
        le=1000,
        description="Passes over the training samples after each step of the cubic schedule.",
    )

    @property
    def trains(self) -> bool:
        return self.pace == "cubic"

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed when there is no graph, nothing to judge the weights by, or training diverges."""
        if model.graph is None:
            raise StepFailed(
                "unstructured_pruning", "an ONNX file cannot be pruned.", "Upload the model as a .pt2."
            )
        graph = copy.deepcopy(model.graph).requires_grad_(True)
        weights = layer_weights(graph)
        before_bytes = _deflated_bytes(weights)
        shares = self._shares(_zero_share(weights))
        for number, share in enumerate(shares):
            found = IMPORTANCES[self.importance]().scores(graph, context)
            scores = {name: _zeros_first(weights[name], score) for name, score in found.items()}
            # The first steps of a pattern may take nothing; what counts is where the last one leads.
            if number == 0 and not any(gone.any() for gone in self._dropped(scores, shares[-1]).values()):
                raise StepFailed(
                    "unstructured_pruning",
                    f"no weight can become zero (importance {self.importance}, pattern {self.pattern}, "
                    f"{shares[-1]:.1%} zeros).",
                    "Raise amount, take another pattern or importance, or leave this step out.",
                )
            dropped = self._dropped(scores, share)
            with torch.no_grad():
                for name, gone in dropped.items():
                    weights[name].masked_fill_(gone, 0)
            if self.pace == "cubic":
                with zeros_kept(graph):
                    train(graph, self._round(context, number, share), settings=self, loss=cross_entropy())
        notes = _notes(weights, dropped, before_bytes)
        return dataclasses.replace(model, graph=graph.eval(), sparse=True, notes=(*model.notes, *notes))

    def _shares(self, before: float) -> list[float]:
        """Share of zeros after each step; `before` is that of the model as it comes."""
        final = self.amount if self.pattern == "none" else 1 - self._kept / self._group
        if self.pace == "one_shot":
            return [final]
        return [cubic(before, final, step / self.steps) for step in range(1, self.steps + 1)]

    @property
    def _kept(self) -> int:
        return int(self.pattern.partition(":")[0])

    @property
    def _group(self) -> int:
        return int(self.pattern.partition(":")[2])

    def _dropped(self, scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Where the weights become zero, bool of each weight's shape."""
        if self.pattern != "none":
            count = round(share * self._group)
            fitting = {name: score for name, score in scores.items() if score.shape[1] % self._group == 0}
            return {name: _lowest_of_groups(score, count, self._group) for name, score in fitting.items()}
        if self.scope == "layer":
            return {name: _lowest(score, share) for name, score in scores.items()}
        sizes = [score.numel() for score in scores.values()]
        together = torch.cat([score.flatten() for score in scores.values()])
        parts = torch.split(_lowest(together, share), sizes)
        return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}

    def _round(self, context: Context, number: int, share: float) -> Context:
        """The training after one step: its own checkpoint and seed, and its epochs counted on."""

        def tell(progress: Progress) -> None:
            text = f"Step {number + 1} of {self.steps}, {share:.1%} zeros: {progress.text}"
            values = counted_on(progress.values, number * self.epochs)
            context.tell(Progress(text, (number + progress.share) / self.steps, values))

        scratch = context.scratch / f"step-{number + 1}"
        scratch.mkdir(exist_ok=True)
        return dataclasses.replace(context, scratch=scratch, seed=context.seed + number, tell=tell)


def cubic(initial: float, final: float, progress: float) -> float:
    """Zhu & Gupta 2017, equation 1: s_f + (s_i - s_f) (1 - (t - t_0) / (n Δt))³; progress is the fraction."""
    return final + (initial - final) * (1 - progress) ** 3


def _zeros_first(weight: Tensor, score: Tensor) -> Tensor:
    """Scores are not negative: what is zero already goes before anything else."""
    return score.masked_fill(weight.detach().cpu() == 0, -1)


def _lowest(scores: Tensor, share: float) -> Tensor:
    """True for this share of the smallest scores, exact to half a weight; of equal ones the first."""
    drop = torch.zeros(scores.numel(), dtype=torch.bool)
    drop[scores.flatten().argsort(stable=True)[: round(share * scores.numel())]] = True
    return drop.view_as(scores)


def _lowest_of_groups(scores: Tensor, count: int, group: int) -> Tensor:
    """True for the `count` smallest of every `group` along the input channels; scores (out, in, …)."""
    last = scores.movedim(1, -1)
    ranks = last.reshape(*last.shape[:-1], -1, group).argsort(dim=-1, stable=True).argsort(dim=-1)
    return ranks.lt(count).flatten(-2).movedim(-1, 1)


def _zero_share(weights: Mapping[str, Tensor]) -> float:
    return _count_zeros(weights) / sum(weight.numel() for weight in weights.values())


def _count_zeros(weights: Mapping[str, Tensor]) -> int:
    return sum(int((weight == 0).sum()) for weight in weights.values())


def _deflated_bytes(weights: Mapping[str, Tensor]) -> int:
    return sum(len(zlib.compress(weight.detach().numpy().tobytes())) for weight in weights.values())


def _notes(weights: Mapping[str, Tensor], pruned: Iterable[str], before_bytes: int) -> Iterator[str]:
    total = sum(weight.numel() for weight in weights.values())
    yield (
        f"{_count_zeros(weights):,} of {total:,} weights are zero ({_zero_share(weights):.2%}). Runtimes for "
        f"dense weights do not run faster for it; deflated, the weights take "
        f"{_deflated_bytes(weights) / 1000:,.0f} kB instead of {before_bytes / 1000:,.0f} kB."
    )
    left = ", ".join(_layer(name) for name in weights if name not in pruned)
    if left:
        yield f"Left alone, because the importance or the pattern does not apply to them: {left}."
    dead = ", ".join(_layer(name) for name, weight in weights.items() if not weight.any())
    if dead:
        yield f"Not one weight is left in {dead}: lower the amount, or set the scope to layer."


def _layer(name: str) -> str:
    return name.removesuffix(".weight")
