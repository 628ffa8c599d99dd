"""The shapes everything else is written against: what is measured, what passes from step to step,
and what a method, a measure and a runtime must offer.

Knows no file format, no training and no queue.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch.fx import GraphModule

from workers.stopwatch import timed

Split = Literal["train", "calibration", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "validation", "test")

#: Name of the one input and the one output of every exported file.
INPUT_NAME, OUTPUT_NAME = "input", "logits"


class Frozen(BaseModel):
    """A value: immutable, compared by content, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what a model takes in -------------------------------------------------------------------------


class TensorSpec(Frozen):
    """One named tensor; a size is a number or a symbol such as ``N``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ImagePreprocessing(Frozen):
    """How a picture becomes the model's input; travels with the model.

    uint8 picture -> grey or RGB -> resize -> centre crop -> divide by 255 -> (x - mean) / std.
    """

    kind: Literal["image"] = "image"
    channels: Literal[1, 3]
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    #: Shorter side before the centre crop; None stretches straight to (height, width).
    resize: int | None = Field(None, ge=1, le=8192)
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        # One number alone would silently be used for all channels.
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"{self.channels} channels, but mean {self.mean} and std {self.std}")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


#: A union by kind once text and tables come.
Preprocessing = ImagePreprocessing


class ModelSpec(Frozen):
    """What is known of a model besides its weights."""

    name: str
    #: SHA-256 of the file the user brought.
    sha256: str
    architecture: str | None
    task: Literal["image_classification"] = "image_classification"
    classes: int = Field(ge=2)
    preprocessing: Preprocessing

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name=INPUT_NAME, dtype="float32", shape=("N", *self.preprocessing.shape)),)


# --- data as the steps see it ----------------------------------------------------------------------


class LabelledData(Protocol):
    """Labelled samples, already preprocessed for one model."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def labels(self, split: Split) -> np.ndarray:
        """(N,) int64, in the order in which ``batches`` gives an unshuffled split."""
        ...

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:
        """(N,) int64: which sample of the split comes when, in ``batches`` with the same ``shuffle``."""
        ...

    def batches(
        self, split: Split, batch_size: int, *, shuffle: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (N, C, H, W) float32 and (N,) int64 on the CPU.

        shuffle: a seed for order and augmentation; None keeps the order of the split.
        augment: "none", "crop" (random shift), "crop_flip" (also mirrored) or "auto" (by data kind).
        """
        ...


# --- what is measured ------------------------------------------------------------------------------


#: A target's runtime where several were tried.
FASTEST = "fastest"


class Target(Frozen):
    """Where a latency was taken. Points of different targets are never drawn as one comparison.

    host: a fingerprint of the machine. device: of the runtime, e.g. "cpu" or "cuda". version: of the runtime;
    another one is another target. runtime: its id, or "fastest": of several, for each stage the one that was
    fastest; version then names all that were tried. name: of a machine that `paredown worker --target NAME`
    made a place to measure on; empty for the one that did the run.
    """

    host: str
    device: str = "cpu"
    runtime: str = "onnxruntime"
    version: str = ""
    threads: int = 1
    batch: int = 1
    #: Left out where it is empty: targets are compared as JSON, with those of before there were names.
    name: str = Field("", exclude_if=lambda name: not name)

    @property
    def software(self) -> str:
        """The runtime with its version: "openvino 2026.4.1"."""
        if self.runtime == FASTEST:
            return f"fastest of {self.version}"
        return f"{self.runtime} {self.version}".strip()

    @property
    def engine(self) -> str:
        """What computes there, in a few words: "onnxruntime 1.32.0 on cuda"."""
        elsewhere = self.device != "cpu" and self.runtime != FASTEST
        return f"{self.software} on {self.device}" if elsewhere else self.software


class Measurement(Frozen):
    """One number of one stage."""

    name: str
    #: None when the number cannot be known, such as the MACs of an uploaded ONNX file.
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str
    better: Literal["higher", "lower"]
    split: Split | None = None
    samples: int | None = None
    target: Target | None = None
    #: What a reader must know to trust the number, e.g. "contended".
    marks: tuple[str, ...] = ()


# --- what passes from step to step -----------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """What a step tells while it works."""

    text: str
    #: Share of this step that is done, 0-1.
    share: float
    #: Points for the curves, e.g. {"epoch": 3, "loss": 0.41, "accuracy": 0.87}.
    values: Mapping[str, float] = field(default_factory=dict)


class ExitPlan(Frozen):
    """Where a model may stop early.

    cuts: names of the graph's nodes after which an exit stands, first to last; the model's own end is no cut.
    max_drop: points of validation accuracy that leaving early may cost. confidence: of the promise that no
    more answers than that get worse; None promises nothing.
    temperatures, thresholds: one per exit (temperatures: also one for the end); None until calibrated on the
    exported file.
    """

    cuts: tuple[str, ...]
    score: Literal["probability", "entropy", "margin", "patience"] = "probability"
    max_drop: float = Field(0.5, ge=0, le=100)
    confidence: float | None = Field(None, gt=0, lt=1)
    temperatures: tuple[float, ...] | None = None
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Candidate:
    """A model between two steps.

    graph: the trainable form; None for an uploaded ONNX file.
    onnx: the file itself when there is no graph.
    notes: what a reader of the result should know, e.g. how far a target was reached.
    sparse: a step made weights zero; steps that train keep them so (`workers.training.zeros`).
    exits: where the graph may stop early; it then gives one set of logits per exit and one for its end.
    segments: the files that a model with exits is made of once it has no graph.
    """

    spec: ModelSpec
    graph: GraphModule | None = None
    onnx: Path | None = None
    notes: tuple[str, ...] = ()
    sparse: bool = False
    exits: ExitPlan | None = None
    segments: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a step may use besides the candidate.

    data: in a run that makes a promise, without the half of validation that tests it.
    original: the model as uploaded, e.g. to distil from.
    others: further models of the user, by the name that a step's ``other_model`` gives.
    runtime, target: the place that the result is for; a step that chooses by time measures there.
    device: where training runs.
    scratch: this step's own folder; survives a kill, so epoch checkpoints live here.
    tell: takes progress; call it as often as you like.
    """

    data: LabelledData
    original: Candidate
    runtime: "Runtime"
    target: Target
    device: torch.device
    seed: int
    scratch: Path
    tell: Callable[[Progress], None]
    others: Mapping[str, Candidate] = field(default_factory=dict)


@dataclass(frozen=True)
class Artefact:
    """A stage as a user would deploy it: the exported file, and the graph it came from if there is one."""

    file: Path
    candidate: Candidate


# --- the three things one adds by adding a file ----------------------------------------------------

Family = Literal["distillation", "pruning", "low_rank", "fine_tuning", "early_exit", "quantization"]


class Method(Frozen):
    """One compression method; its fields are its settings. File name = id.

    Fields need a default, bounds and a description: the form, the recipe schema, the command line and
    the documentation are made from them.
    """

    title: ClassVar[str]
    family: ClassVar[Family]
    #: Paper and equation.
    source: ClassVar[str]
    #: A sentence that a person should read before the run, not after it; empty where there is none.
    caution: ClassVar[str] = ""

    @property
    def needs_graph(self) -> bool:
        """True where the step trains or cuts the graph; an uploaded ONNX file has none."""
        return True

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Names of the fields as a person should meet them: the method's own, then those it shares."""
        declared = [
            [name for name in vars(kind).get("__annotations__", ()) if name in cls.model_fields]
            for kind in cls.__mro__
        ]
        # One that is declared again with another default keeps its first place.
        return tuple(
            name
            for index, names in enumerate(declared)
            for name in names
            if not any(name in later for later in declared[index + 1 :])
        )

    @property
    def trains(self) -> bool:
        """True where it goes through the training samples, so that a GPU pays off."""
        return False

    @property
    def left(self) -> Mapping[str, float | None]:
        """Roughly what is left of the `macs`, `parameters` and `size`, as shares; what is not named stays,
        and of what is None nobody knows.

        For the form, before anything is measured.
        """
        return {}

    @property
    def depends_on_target(self) -> bool:
        """True where times taken on the target decide the result; another target is then another stage."""
        return False

    @property
    def promises(self) -> bool:
        """True where a promise is tested on half of the validation samples, which then no step of the run
        may see.
        """
        return False

    @property
    def refuses_exits(self) -> str:
        """Why it cannot take a model with exits and what to do, in a sentence; empty where it can."""
        return ""

    @property
    def other_model(self) -> str | None:
        """Name or SHA-256 of another model that the step learns from; None where it needs none."""
        return None

    def check(self, model: Candidate) -> None:
        """Refuse, before hours of work, what is known to fail on `model`, which has the nodes that the step
        will find. Raises StepFailed.
        """

    @abstractmethod
    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Return the changed candidate; ``model`` itself stays as it is."""


class Session(ABC):
    """An artefact opened in one runtime, ready to be called."""

    @abstractmethod
    def run(self, inputs: np.ndarray) -> np.ndarray:
        """(N, C, H, W) float32 -> logits (N, classes) float32."""

    def timed(self, inputs: np.ndarray, threads: int, *, warm: bool = False) -> tuple[float, bool]:
        """Seconds of one call, and whether it was pushed off its core.

        warm: a call before it, not timed, brings the weights back into the cache that other files used since.
        """
        if warm:
            self.run(inputs)
        return timed(partial(self.run, inputs), threads=threads)


class Runtime(ABC):
    """One inference engine on one device. File name = id."""

    title: ClassVar[str]
    #: The package that it is, for its version and to see whether it is there.
    package: ClassVar[str]
    #: The command that adds it.
    install: ClassVar[str]
    #: True where it needs more than the exported file: steps that time single layers cannot use it.
    whole_models_only: ClassVar[bool] = False
    #: True where it runs the branches of a file that stops early.
    stops_early: ClassVar[bool] = False

    device: str = "cpu"

    @classmethod
    def id(cls) -> str:
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        """What it can be made for here, the usual one first."""
        return ("cpu",)

    @classmethod
    def missing(cls) -> str | None:
        """A sentence on what keeps it from working here; None where it does."""
        return None if find_spec(cls.package) else f"The package {cls.package} is not installed."

    @classmethod
    def version(cls) -> str:
        return metadata.version(cls.package)

    @abstractmethod
    def open(self, file: Path, *, threads: int, optimize: bool = True) -> Session:
        """Load an exported file. Raises SomethingMissing when the engine is not installed."""

    def ready(self, threads: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """While this is open, what it needs besides files stays there from one file to the next."""
        return nullcontext()


@dataclass(frozen=True)
class Place:
    """Where numbers are taken."""

    runtime: Runtime
    target: Target


@dataclass(frozen=True)
class Bench:
    """What a measure may use besides the artefacts: real samples and the place to measure on."""

    data: LabelledData
    runtime: Runtime
    target: Target
    tell: Callable[[Progress], None]


class Measure(ABC):
    """One number of an artefact. File name = id."""

    title: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Literal["higher", "lower"]]
    #: True where artefacts only compare when they are measured side by side: the pipeline then calls
    #: once, with every stage of the run. Otherwise it calls once per stage, as soon as it is exported.
    together: ClassVar[bool] = False
    #: True where the number depends on the runtime; else it is taken once, whatever runs the model.
    in_runtime: ClassVar[bool] = False

    @abstractmethod
    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:
        """One list per artefact, the baseline first; e.g. validation and test make two measurements."""


#: Artefacts that are measured in one place, the baseline first.
Group = tuple[Sequence[Artefact], Bench]


class Comparison(Measure):
    """A measure that is taken side by side, in several places at once where that was asked for."""

    together = True

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:
        (found,) = self.compare([(artefacts, bench)])
        return [found[artefact.file] for artefact in artefacts]

    @abstractmethod
    def compare(
        self, groups: Sequence[Group], fastest: Target | None = None
    ) -> list[Mapping[Path, list[Measurement]]]:
        """One mapping per group, by file.

        fastest: makes one more, of that target: each file in the group in which it was fastest, named by the
        first mark. A file that is not in every group has the others to be fastest in.
        """
