"""Train a student on what a teacher says of the samples, not on their labels alone."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from pydantic.config import JsonDict
from torch import Tensor, nn
from torch.fx import GraphModule

from workers.base import Candidate, Context, Family, Frozen, Method, ModelSpec, Preprocessing, Progress
from workers.errors import StepFailed
from workers.graph.architectures import architecture_names
from workers.graph.students import known, narrower, shallower
from workers.training.distillation import accuracy_of, distil, learn_from
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.notes import course
from workers.training.settings import TrainingSettings
from workers.training.soft_losses import SOFT_LOSSES
from workers.training.zeros import zeros_kept

ARCHITECTURES: JsonDict = {"enum": list(architecture_names())}


class Lesson(Frozen):
    """Who learns what from whom."""

    student: Literal["current", "narrower", "shallower", "architecture"] = Field(
        "current",
        description="Who learns: the model as it stands, a copy with fewer channels and fresh weights, a "
        "copy with fewer residual branches, or another architecture with fresh weights.",
    )
    teacher: Literal["original", "current", "other", "architecture"] = Field(
        "original",
        description="Who teaches: the model as uploaded, the model as it stands, another uploaded model, or "
        "an architecture that is trained here first.",
    )
    loss: Literal["hinton", "standardised", "dkd", "dist"] = Field(
        "hinton",
        description="How student and teacher are compared: soft cross-entropy, the same on standardised "
        "logits, label and other classes apart, or by correlation, for a far stronger teacher.",
    )
    weight: float = Field(
        0.9, ge=0, le=1, description="Share of the teacher in the loss (λ); the labels have the rest."
    )
    temperature: float = Field(
        4.0, ge=0.5, le=20, description="Divides the logits; higher shows more of the unlikely classes."
    )
    width: float = Field(
        0.5, ge=0.05, lt=1, description="Share of the channels that a narrower student keeps."
    )
    round_to: int = Field(
        8, ge=1, le=64, description="Widths of a narrower student become multiples of this, rounded up."
    )
    depth: float = Field(
        0.5, ge=0, lt=1, description="Share of the residual branches that a shallower student keeps."
    )
    architecture: str = Field(
        "cifar_resnet8", json_schema_extra=ARCHITECTURES, description="Of a student that is an architecture."
    )
    teacher_model: str = Field(
        "", max_length=200, description="Name or SHA-256 of the other uploaded model, where it teaches."
    )
    teacher_architecture: str = Field(
        "cifar_resnet20",
        json_schema_extra=ARCHITECTURES,
        description="Of a teacher that is trained here first.",
    )
    teacher_epochs: int = Field(
        10, ge=1, le=1000, description="Epochs for a teacher that is trained here first."
    )
    teacher_learning_rate: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Peak of the schedule for a teacher that is trained here first, from fresh weights; with "
        "AdamW about 0.001.",
    )

    @field_validator("architecture", "teacher_architecture")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in architecture_names():
            raise ValueError("is no known architecture; `paredown architectures` lists them")
        return name


class Distillation(Lesson, TrainingSettings, Method):
    """A student learns from the teacher's logits beside the labels; the best epoch by validation is kept."""

    title: ClassVar[str] = "Distillation"
    family: ClassVar[Family] = "distillation"
    source: ClassVar[str] = (
        "(1-λ)·H(y, p) + λ·T²·H(softmax(q/T), softmax(p/T)), p student, q teacher: Hinton et al. 2015 "
        "(arXiv:1503.02531); for the second part also logit standardisation (Sun et al. 2024, "
        "arXiv:2403.01427), DKD (Zhao et al. 2022, arXiv:2203.08679), DIST (Huang et al. 2022, "
        "arXiv:2205.10536)"
    )

    learning_rate: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Peak of the schedule; about 0.1 for a student with fresh weights, with AdamW 0.001.",
    )

    @property
    def left(self) -> Mapping[str, float | None]:
        if self.student == "narrower":  # both sides of most layers get narrower
            return dict.fromkeys(("macs", "parameters", "size"), self.width**2)
        return {} if self.student == "current" else dict.fromkeys(("macs", "parameters", "size"))

    @property
    def other_model(self) -> str | None:
        return self.teacher_model if self.teacher == "other" else None

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed when student or teacher cannot be made, or when training diverges."""
        if model.graph is None:
            raise StepFailed("distillation", "an ONNX file cannot be trained.", "Upload the model as a .pt2.")
        student, made = self._student(model.graph, model.spec, context.seed)
        teacher, taught = self._teacher(model, context)
        asking = self._part(context, "answers")
        accuracy = accuracy_of(teacher, asking, self)
        ask, data = learn_from(teacher, asking, self)
        student.requires_grad_(True)
        sparse = model.sparse and self.student in ("current", "shallower")  # others have fresh weights
        with zeros_kept(student, sparse):
            history = train(
                student,
                dataclasses.replace(self._part(context, "student"), data=data),
                settings=self,
                loss=distil(ask, SOFT_LOSSES[self.loss](self.temperature), self.weight),
            )
        notes = [
            f"Student: {made}. Teacher: {taught}, {accuracy:.2%} on validation.",
            f"Distillation {course(history, self, context.device)}",
        ]
        if history.best_accuracy >= accuracy and self.weight > 0.5:
            notes.append(
                "The student is at least as accurate as its teacher: a smaller weight, or fine_tuning, may "
                "do better still."
            )
        return dataclasses.replace(model, graph=student, sparse=sparse, notes=(*model.notes, *notes))

    def _student(self, graph: GraphModule, spec: ModelSpec, seed: int) -> tuple[GraphModule, str]:
        """A network of its own, and what it is."""
        if self.student == "narrower":
            student = narrower(graph, spec, width=self.width, round_to=self.round_to, seed=seed)
            kept = _parameters(student) / _parameters(graph)
            return student, f"a narrower copy with fresh weights and {kept:.0%} of the parameters"
        if self.student == "shallower":
            student, gone, count = shallower(graph, spec, depth=self.depth)
            return student, f"a copy without {gone} of {count} residual branches"
        if self.student == "architecture":
            return known(self.architecture, spec, seed), f"{self.architecture} with fresh weights"
        return copy.deepcopy(graph), "the model as it stood"

    def _teacher(self, model: Candidate, context: Context) -> tuple[nn.Module, str]:
        """A network that takes the student's inputs, and what it is."""
        if self.teacher == "architecture":
            epochs = self.teacher_epochs
            network = known(self.teacher_architecture, model.spec, context.seed).requires_grad_(True)
            settings = self.model_copy(update={"epochs": epochs, "learning_rate": self.teacher_learning_rate})
            train(network, self._part(context, "teacher"), settings=settings, loss=cross_entropy())
            return network, f"{self.teacher_architecture}, trained here for up to {epochs} epochs"
        teacher, what = {
            "original": (context.original, "the model as uploaded"),
            "current": (model, "the model as it stood"),
            "other": (context.others.get(self.teacher_model), f"{self.teacher_model}"),
        }[self.teacher]
        if teacher is None or teacher.graph is None:
            raise StepFailed(
                "distillation",
                f"the teacher ({what}) is not there, or is an ONNX file.",
                "Name a trainable model: --other NAME=FILE on the command line, an uploaded one elsewhere.",
            )
        return _Seeing(teacher.graph, teacher.spec.preprocessing, model.spec.preprocessing), what

    def _part(self, context: Context, name: Literal["teacher", "answers", "student"]) -> Context:
        """A folder of its own, and its share of the progress. Only the student draws the curves."""
        scratch = context.scratch / name
        scratch.mkdir(exist_ok=True)
        trains = self.teacher_epochs if self.teacher == "architecture" else 0
        middle = trains / (trains + self.epochs)
        start, end = {"teacher": (0.0, middle), "answers": (middle, middle), "student": (middle, 1.0)}[name]

        def tell(progress: Progress) -> None:
            values = progress.values
            text = progress.text
            if name == "teacher":
                values, text = {f"teacher_{key}": value for key, value in values.items()}, f"Teacher: {text}"
            context.tell(Progress(text, start + (end - start) * progress.share, values))

        return dataclasses.replace(context, scratch=scratch, tell=tell)


class _Seeing(nn.Module):
    """A network that is given pictures normalised for another one: x std + mean, then (x - mean') / std'."""

    def __init__(self, network: nn.Module, own: Preprocessing, given: Preprocessing) -> None:
        super().__init__()
        own_std = torch.tensor(own.std)
        self.network = network
        factor = torch.tensor(given.std) / own_std
        offset = (torch.tensor(given.mean) - torch.tensor(own.mean)) / own_std
        self.factor, self.offset = (nn.Buffer(tensor.view(-1, 1, 1)) for tensor in (factor, offset))
        self.alike = (own.mean, own.std) == (given.mean, given.std)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs if self.alike else inputs * self.factor + self.offset)
        return logits


def _parameters(graph: GraphModule) -> int:
    return sum(parameter.numel() for parameter in graph.parameters())
