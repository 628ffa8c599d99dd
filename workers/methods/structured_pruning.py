"""Remove whole channels and residual blocks, so that what is left is a smaller dense network."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from torch.fx import GraphModule

from workers.base import Candidate, Context, Family, Method, Progress
from workers.errors import StepFailed
from workers.graph.layer_roles import LAYERS
from workers.graph.naming import named_layers
from workers.importance import IMPORTANCES, ImportanceId
from workers.pruning.blocks import remove_blocks
from workers.pruning.choosing import Scope, by_root
from workers.pruning.costs import Amount, Cost, cost_of
from workers.pruning.following import follow
from workers.pruning.groups import CannotFollow, Group
from workers.pruning.search import narrow, sample_input
from workers.training.recovery import RecoverySettings, recover
from workers.training.rounds import counted_on
from workers.training.statistics import recalibrate
from workers.training.zeros import zeros_kept


class StructuredPruning(RecoverySettings, Method):
    """Channels that matter least go until the wanted share of the cost is gone; then accuracy recovers."""

    title: ClassVar[str] = "Structured pruning"
    family: ClassVar[Family] = "pruning"
    source: ClassVar[str] = (
        "Dependency graph and group importance: Fang et al. 2023, DepGraph (arXiv:2301.12900), section 3.2; "
        "recovery: Hinton et al. 2015 (arXiv:1503.02531), section 2"
    )

    amount: float = Field(
        0.5, ge=0, le=0.95, description="Share of the cost to remove; 0: only what layer_amounts says."
    )
    amount_of: Amount = Field(
        "macs",
        description="The cost: multiply-accumulates, parameters, or the latency measured on the target.",
    )
    importance: ImportanceId = Field("l2", description="How it is judged which channels matter least.")
    scope: Scope = Field(
        "uniform",
        description="Every layer loses the same share of its channels, or those go that matter least in the "
        "whole network (global).",
    )
    round_to: int = Field(
        8, ge=1, le=64, description="Widths become multiples of this; others are slow on most processors."
    )
    rounds: int = Field(
        1, ge=1, le=20, description="In how many rounds the amount is reached, with a recovery after each."
    )
    remove_blocks: int = Field(
        0,
        ge=0,
        le=200,
        description="Residual blocks that go whole first, those that raise the loss on the calibration split "
        "least; channels make up the rest of the amount.",
    )
    layer_amounts: dict[str, Annotated[float, Field(ge=0, le=0.95)]] = Field(
        {},
        max_length=1000,
        description="Share of its channels that a layer loses, by its name, instead of what the amount would "
        "take from it; what must stay as wide goes with it.",
    )
    recalibrate: bool = Field(
        True, description="Take the statistics of BatchNorm anew, on training samples, without training."
    )
    keep: str = Field(
        "",
        max_length=2000,
        description="Layers to leave alone, by name, separated by commas; * stands for anything.",
    )

    @model_validator(mode="after")
    def _something_goes(self) -> Self:
        if not self.amount and not self.layer_amounts:
            raise ValueError("amount 0 removes nothing without layer_amounts")
        return self

    @property
    def depends_on_target(self) -> bool:
        return self.amount_of == "latency"

    @property
    def left(self) -> Mapping[str, float | None]:
        if not self.amount:
            return {}
        return dict.fromkeys(("macs", "parameters", "size"), 1 - self.amount)

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed when there is no graph, a layer to keep is unknown or nothing can be removed."""
        if model.graph is None:
            raise StepFailed(
                "structured_pruning", "an ONNX file cannot be pruned.", "Upload the model as a .pt2."
            )
        return _Pruning(self, model, model.graph, context).run()


class _Pruning:
    def __init__(
        self, settings: StructuredPruning, model: Candidate, graph: GraphModule, context: Context
    ) -> None:
        self.settings, self.model, self.graph, self.context = settings, model, graph, context
        self.sample = sample_input(model.spec, context.seed)
        self.keep = _kept_layers(graph, settings.keep)
        self.notes: list[str] = []
        self.removed = 0.0
        self.recoveries = 0
        #: Of every group whose share is given, by its root, before the first round.
        self.widths: dict[str, int] = {}
        self.cost: Cost = cost_of(settings.amount_of, model, context)

    def run(self) -> Candidate:
        self._remove_blocks()
        rounds = self.settings.rounds
        for number in range(1, rounds + 1):
            # Every round removes the same share of what the one before it left.
            self._narrow(1 - (1 - self.settings.amount) ** (number / rounds), number)
            if self.graph is self.model.graph:  # less than one step of widths was due: nothing is lost yet
                continue
            if self.settings.recalibrate:
                recalibrate(self.graph, self.context)
                self.graph.eval()
            if self.settings.recovery != "none":
                self._recover(number)
        self.notes.append(_reached(self.removed, self.settings.amount, self.cost.title))
        notes = tuple(dict.fromkeys(self.notes))  # what cannot be followed is the same in every round
        return dataclasses.replace(self.model, graph=self.graph, notes=(*self.model.notes, *notes))

    def _remove_blocks(self) -> None:
        if not self.settings.remove_blocks:
            return
        self.context.tell(Progress("removing residual blocks", 0.0))
        self.graph, gone = remove_blocks(
            self.graph,
            self.sample,
            self.context,
            most=self.settings.remove_blocks,
            keep=self.keep.union(self.settings.layer_amounts),
            # Of an amount of 0 there is never enough: it leaves to the blocks how much goes.
            enough=lambda graph: 0 < self.settings.amount <= self.cost.removed(graph),
        )
        self.removed = self.cost.removed(self.graph)
        told = ", ".join(block.layers[0].rpartition(".")[0] or block.layers[0] for block in gone)
        self.notes.append(
            f"Residual blocks removed: {told}." if gone else "No residual block could be removed."
        )

    def _narrow(self, amount: float, number: int) -> None:
        if self.removed >= amount and not self.settings.layer_amounts:
            return
        context = self._part(number, 0.0, 0.3)
        scores = IMPORTANCES[self.settings.importance]().scores(self.graph, context)
        followed = follow(self.graph, self.sample, scores, self.keep)
        self.notes.extend(followed.notes)
        try:
            narrowed = narrow(
                self.graph,
                self.sample,
                followed.groups,
                self.cost,
                amount,
                scope=self.settings.scope,
                round_to=self.settings.round_to,
                tell=context.tell,
                fixed=self._fixed(followed.groups, number),
            )
        except CannotFollow as error:
            raise StepFailed(
                "structured_pruning", f"a cut did not pass its comparison ({error}).", "Leave this step out."
            ) from error
        if narrowed is None:
            if self.graph is self.model.graph and number == self.settings.rounds:
                raise StepFailed(
                    "structured_pruning",
                    f"no layer can become narrower at round_to={self.settings.round_to}.",
                    "Lower round_to, or leave this step out.",
                )
            return
        self.graph, self.removed = narrowed.graph, narrowed.removed

    def _fixed(self, groups: Sequence[Group], number: int) -> dict[str, float]:
        """What groups with a share of their own lose now, by root: of the width that they were left with.

        Reckoned from the first width, since widths are rounded: shares of what a round left would not add up.
        """
        widths = {group.root: group.width for group in groups}
        fixed = {}
        for root, share in by_root(groups, self.settings.layer_amounts).items():
            first = self.widths.setdefault(root, widths[root])
            due = first * (1 - share) ** (number / self.settings.rounds)
            fixed[root] = max(0.0, 1 - due / widths[root])
        return fixed

    def _recover(self, number: int) -> None:
        assert self.model.graph is not None
        context = self._recovery(number)
        self.recoveries += 1
        self.graph.requires_grad_(True)  # a frozen model that lost blocks alone still is
        with zeros_kept(self.graph, self.model.sparse):
            history = recover(self.graph, self.model.graph, context, self.settings, f"round-{number}")
        which = f" {number}" if self.settings.rounds > 1 else ""
        self.notes.append(
            f"Recovery{which} by {self.settings.recovery.replace('_', '-')}: validation accuracy "
            f"{history.start_accuracy:.2%} before, {history.best_accuracy:.2%} after epoch "
            f"{history.best_epoch} of {self.settings.recovery_epochs}."
        )

    def _recovery(self, number: int) -> Context:
        """For the training after one round: its own seed, and its epochs counted on."""
        part, rounds = self._part(number, 0.3, 1.0), self.settings.rounds
        epochs = self.recoveries * self.settings.recovery_epochs

        def tell(progress: Progress) -> None:
            text = f"Round {number} of {rounds}: " * (rounds > 1) + progress.text
            part.tell(Progress(text, progress.share, counted_on(progress.values, epochs)))

        return dataclasses.replace(part, seed=part.seed + number - 1, tell=tell)

    def _part(self, number: int, start: float, end: float = 1.0) -> Context:
        """The context with progress told for a part of a round."""

        def tell(progress: Progress) -> None:
            share = (number - 1 + start + (end - start) * progress.share) / self.settings.rounds
            self.context.tell(dataclasses.replace(progress, share=share))

        return dataclasses.replace(self.context, tell=tell)


def _kept_layers(graph: GraphModule, keep: str) -> frozenset[str]:
    layers = [name for name, module in graph.named_modules() if isinstance(module, LAYERS)]
    return named_layers(keep, layers, where="structured_pruning: keep", what="convolution or linear layer")


def _reached(removed: float, amount: float, what: str) -> str:
    measured = ", as measured during the search" if what == "latency" else ""
    if removed >= amount:
        return f"Removed {removed:.1%} of the {what}{measured} (asked: at least {amount:.0%})."
    return f"Could remove only {removed:.1%} of the {what}{measured} (asked: {amount:.0%})."
