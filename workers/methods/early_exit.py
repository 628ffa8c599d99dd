"""Let a model stop early: exits on the way, each with a head of its own, trained with the model or alone."""

import copy
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from torch.fx import GraphModule

from workers.base import Candidate, Context, ExitPlan, Family, Frozen, Method, Progress
from workers.errors import StepFailed
from workers.exits.heads import HeadKind, heads_for
from workers.exits.losses import LabelLossName, Weighting, exit_loss
from workers.exits.placing import Spot, named_points, place_by_name, place_by_number
from workers.exits.staging import HeadsOnly, add_exits, balanced
from workers.training.distillation import accuracy_of, learn_from
from workers.training.loop import train
from workers.training.losses import Loss
from workers.training.notes import course
from workers.training.settings import TrainingSettings
from workers.training.state import History
from workers.training.zeros import zeros_kept

#: Share of the validation samples that the end of the model may get wrong for the sake of the exits.
MAX_LOSS_OF_THE_END = 0.003

#: Of a promise that is more often kept than broken.
LEAST_CONFIDENCE = 0.5

Number = Annotated[int, Field(ge=1, le=4)]
Cuts = Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(min_length=1, max_length=4)]


class ExitSettings(Frozen):
    """Where exits stand and how they learn."""

    exits: Number | Cuts = Field(
        2,
        description="How many exits, spread over the measured latency, or the names of the graph's nodes "
        "after which they stand.",
    )
    max_drop: float = Field(
        0.5,
        ge=0,
        le=20,
        description="Points of accuracy that leaving early may cost on validation, with one standard error "
        "to spare.",
    )
    training: Literal["two_phase", "heads", "joint"] = Field(
        "two_phase",
        description="First the heads on the model as it is, then everything together (two_phase); the heads "
        "alone, which leaves the model as it is; or everything together from the start (joint).",
    )
    head: HeadKind = Field(
        "auto",
        description="What turns features into answers: means and a linear layer, or a convolution before "
        "them; auto takes the convolution where features have fewer than 32 channels.",
    )
    score: Literal["probability", "entropy", "margin", "patience"] = Field(
        "probability",
        description="How sure an exit is: its largest probability, the entropy of all, the lead over the "
        "second, or how many exits in a row agree (patience, from two exits on).",
    )
    guarantee: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Confidence of a promise about how many answers get worse by leaving early, 0.5 or more, "
        "e.g. 0.9, made on half of validation, which no step of the run then sees; 0 promises nothing.",
    )
    loss: LabelLossName = Field(
        "cross_entropy",
        description="On the labels: classes against each other, or each class as a question of its own.",
    )
    # On 12,000 pictures of Fashion-MNIST and a network of 14 MMACs: 0.44 of the mean time, rising 0.58.
    exit_weights: Weighting = Field(
        "equal",
        description="What each exit counts in the loss: all alike, or the later the more (m / M).",
    )
    distillation: Literal["original", "current", "none"] = Field(
        "original",
        description="Who teaches every exit: the model as uploaded, the model before this step, or nobody.",
    )
    distillation_weight: float = Field(
        0.5, ge=0, le=1, description="Share of the teacher in the loss (λ); the labels have the rest."
    )
    self_distillation: float = Field(
        0.0, ge=0, le=10, description="Weight of the end of the model as a further teacher of its exits (μ)."
    )
    temperature: float = Field(4.0, ge=0.5, le=20, description="Divides the logits where a model teaches.")
    equilibrium: bool = Field(
        True,
        description="Scale the gradients, so that those of several exits do not add up in the first layers.",
    )
    head_epochs: int = Field(
        5, ge=1, le=1000, description="Epochs for the heads alone, where they come first."
    )
    head_learning_rate: float = Field(
        0.1, gt=0, le=1, description="Peak of the schedule for the heads alone; with AdamW 0.003."
    )

    @field_validator("exits")
    @classmethod
    def _named_once(cls, exits: int | tuple[str, ...]) -> int | tuple[str, ...]:
        if not isinstance(exits, int) and len(set(exits)) < len(exits):
            raise ValueError("an exit is named twice: name each node once")
        return exits

    @model_validator(mode="after")
    def _patience_has_exits_to_count(self) -> Self:
        number = self.exits if isinstance(self.exits, int) else len(self.exits)
        if self.score == "patience" and number == 1:
            raise ValueError(
                "score patience counts exits in a row that agree, which one exit alone always does: take "
                "two exits or more, or another score"
            )
        return self

    @field_validator("guarantee")
    @classmethod
    def _is_a_promise(cls, confidence: float) -> float:
        # Not a bound of the field: 0 is allowed too. Probably meant is the risk, 1 - confidence.
        if 0 < confidence < LEAST_CONFIDENCE:
            raise ValueError(
                f"a promise is worth nothing where it is likelier broken than kept: enter how sure it is to "
                f"hold, {LEAST_CONFIDENCE:g} or more, e.g. 0.9, or 0 for none"
            )
        return confidence


class EarlyExit(ExitSettings, TrainingSettings, Method):
    """Heads at cuts of the graph answer early; where an exit is sure enough, the rest is not computed."""

    title: ClassVar[str] = "Early exits"
    family: ClassVar[Family] = "early_exit"
    source: ClassVar[str] = (
        "Σ_m ω_m L(y, ŷ_m): BranchyNet (Teerapittayanon et al. 2016, arXiv:1709.01686); mixed "
        "training (Kubaty et al. 2024, arXiv:2407.14320); gradient equilibrium (Li et al. 2019, "
        "arXiv:1908.06294); self-distillation (Phuong & Lampert 2019)"
    )

    # tests/benchmarks/results/exits.md: 0.399 of the time with augmentation, 0.219 without, as accurate.
    augmentation: Literal["auto", "none", "crop", "crop_flip"] = Field(
        "none",
        description="Random shift of the training pictures, also mirrored, or chosen by data kind; heads "
        "that learn without are surer, so that more samples leave early.",
    )

    @property
    def depends_on_target(self) -> bool:
        return True  # thresholds weigh what each way out takes there

    @property
    def promises(self) -> bool:
        return self.guarantee > 0

    def check(self, model: Candidate) -> None:
        if model.graph is not None and not isinstance(self.exits, int):
            named_points(model.graph, self.exits, model.spec.preprocessing.shape)

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed when there is no graph, no place for an exit, or when training diverges."""
        if model.graph is None or model.exits is not None:
            raise StepFailed(
                "early_exit",
                "an ONNX file cannot be trained." if model.graph is None else "the model has exits already.",
                "Upload the model as a .pt2." if model.graph is None else "Leave one of the two steps out.",
            )
        spots = self._spots(model.graph, context)
        cuts = [spot.name for spot in spots]
        heads = heads_for(model.graph, cuts, model.spec, self.head, context.seed)
        staged = add_exits(model.graph, heads)
        staged, told = _Training(self, model, context).run(staged)
        plan = ExitPlan(
            cuts=tuple(cuts), score=self.score, max_drop=self.max_drop, confidence=self.guarantee or None
        )
        notes = (*model.notes, *self._placed(spots), *told)
        return dataclasses.replace(model, graph=staged, exits=plan, notes=notes)

    def _spots(self, graph: GraphModule, context: Context) -> list[Spot]:
        if isinstance(self.exits, int):
            return place_by_number(graph, self.exits, self.head, context)
        return place_by_name(graph, self.exits, self.head, context)

    def _placed(self, spots: Sequence[Spot]) -> list[str]:
        where = (f"{spot.name} ({spot.share:.0%} of the latency, its head {spot.head:.0%})" for spot in spots)
        notes = [f"Exits after {', '.join(where)}."]
        if isinstance(self.exits, int) and len(spots) < self.exits:
            notes.append(f"{len(spots)} instead of {self.exits} exits: no other cuts are far enough apart.")
        return notes


class _Training:
    """Trains a staged graph; knows what its end could do before."""

    def __init__(self, settings: EarlyExit, model: Candidate, context: Context) -> None:
        assert model.graph is not None
        self.settings, self.sparse = settings, model.sparse
        taught = {"original": context.original.graph, "current": model.graph, "none": None}
        network = taught[settings.distillation]
        teacher, data = None, context.data
        if network is not None:
            teacher, data = learn_from(network, self._part(context, "answers"), settings)
        self.context = dataclasses.replace(context, data=data)
        self.loss: Loss = exit_loss(
            settings.loss,
            teacher=teacher,
            distillation=settings.distillation_weight,
            self_distillation=settings.self_distillation,
            temperature=settings.temperature,
            weighting=settings.exit_weights,
        )
        self.before = accuracy_of(model.graph, context, settings)

    def run(self, staged: GraphModule) -> tuple[GraphModule, list[str]]:
        """The trained graph, and what a reader should know of it."""
        notes: list[str] = []
        if self.settings.training != "joint":
            history = self._heads(staged)
        if self.settings.training != "heads":
            together = copy.deepcopy(staged)
            joint = self._together(together)
            if joint.best_epoch > 0:
                staged, history = together, joint
                notes.append(f"Training together {course(joint, self.settings, self.context.device)}")
            else:
                notes.append(_KEPT.format(epochs=len(joint.points) - 1))
                if self.settings.training == "joint":
                    history = self._heads(staged)
        return staged, [*notes, self._accuracies(history.points[history.best_epoch])]

    def _heads(self, staged: GraphModule) -> History:
        """Train the heads in place; everything else, statistics of BatchNorm included, stays."""
        settings = self.settings.model_copy(
            update={"epochs": self.settings.head_epochs, "learning_rate": self.settings.head_learning_rate}
        )
        context = self._part(self.context, "heads")
        return train(HeadsOnly(staged), context, settings=settings, loss=self.loss, rank=_mean_of_exits)

    def _together(self, staged: GraphModule) -> History:
        """Train everything in place; an epoch that costs the end too much is worse than none."""

        def rank(point: Mapping[str, float]) -> float:
            lost = self.before - point["accuracy"]
            return -lost if lost > MAX_LOSS_OF_THE_END else (point["accuracy"] + _mean_of_exits(point)) / 2

        staged.requires_grad_(True)
        trained = balanced(staged) if self.settings.equilibrium else staged
        context = self._part(self.context, "together")
        with zeros_kept(staged, self.sparse):
            return train(trained, context, settings=self.settings, loss=self.loss, rank=rank)

    def _accuracies(self, point: Mapping[str, float]) -> str:
        exits = [f"exit {number} {share:.2%}" for number, share in enumerate(_exits(point), start=1)]
        return (
            f"Validation accuracy: {', '.join(exits)}, the end {point['accuracy']:.2%} "
            f"({self.before:.2%} before it had exits)."
        )

    def _part(self, context: Context, name: Literal["answers", "heads", "together"]) -> Context:
        """A folder of its own, and its share of the progress; the second phase goes on counting epochs."""
        scratch = context.scratch / name
        scratch.mkdir(exist_ok=True)
        both = self.settings.head_epochs / (self.settings.head_epochs + self.settings.epochs)
        middle = {"two_phase": both, "heads": 1.0, "joint": 0.0}[self.settings.training]
        second = {
            ("two_phase", "together"): self.settings.head_epochs,
            ("joint", "heads"): self.settings.epochs,
        }
        before = second.get((self.settings.training, name), 0)
        start, end = {"answers": (0.0, 0.0), "heads": (0.0, middle), "together": (middle, 1.0)}[name]

        def tell(progress: Progress) -> None:
            values, text = progress.values, progress.text
            if name == "heads":
                text = f"Heads: {text}"
            if before and values.get("epoch") == 0:
                values = {}  # that is how the first phase ended
            elif "epoch" in values:
                values = {**values, "epoch": values["epoch"] + before}
            context.tell(Progress(text, start + (end - start) * progress.share, values))

        return dataclasses.replace(context, scratch=scratch, tell=tell)


_KEPT = (
    "The model stays as it was, with heads that were trained alone: none of {epochs} epochs of training "
    f"everything together was better and cost its end no more than {MAX_LOSS_OF_THE_END * 100:g} points."
)


def _exits(point: Mapping[str, float]) -> list[float]:
    return [share for name, share in point.items() if name.startswith("exit_")]


def _mean_of_exits(point: Mapping[str, float]) -> float:
    return statistics.mean(_exits(point))
