"""A small network with two exits, cut into segments: as modules, and as ONNX files in float32 and int8."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from tests.support.arrays import candidate
from workers.base import ExitPlan, ModelSpec
from workers.exits.scores import Score

CLASSES = ("a", "b", "c")
SPEC: ModelSpec = candidate(None).spec
PLAN = ExitPlan(cuts=("first", "second"), temperatures=(0.5, 0.8, 1.0), thresholds=(0.7, 0.6))
#: So that of 60 samples some take each exit; nobody agrees with a second exit at the first.
THRESHOLDS: dict[Score, tuple[float, float]] = {
    "probability": (0.7, 0.6),
    "entropy": (0.6, 0.5),
    "margin": (0.5, 0.3),
    "patience": (1, 1),
}


def plan(score: Score) -> ExitPlan:
    return PLAN.model_copy(update={"score": score, "thresholds": THRESHOLDS[score]})


class Part(nn.Module):
    """A convolution, and a head over its features."""

    def __init__(self, channels_in: int, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(channels, classes)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(inputs)
        return self.linear(self.pool(hidden)), hidden


class Last(Part):
    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(inputs)[0]


def parts(channels: Sequence[int] = (4, 6, 8), classes: int = 3) -> list[Part]:
    """Random weights, the same at every call; each exit says what it can of what the end will say."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kinds = [Part] * (len(channels) - 1) + [Last]
        made = [
            kind(before, after, classes).eval()
            for kind, before, after in zip(kinds, (1, *channels), channels, strict=False)
        ]
    features, hidden = [], torch.from_numpy(samples(200, seed=9))
    with torch.no_grad():
        for part in made:
            hidden = part.body(hidden)
            features.append(nn.functional.pad(part.pool(hidden), (0, 1), value=1))
        end = features[-1] @ torch.randn(
            features[-1].shape[1], classes, generator=torch.Generator().manual_seed(0)
        )
        end = 3 * (end - end.mean(0)) / end.std(0)
        for part, given in zip(made, features, strict=True):
            weight = torch.linalg.lstsq(given, end).solution.T
            part.linear.weight.copy_(weight[:, :-1])
            part.linear.bias.copy_(weight[:, -1])
    return made


def samples(count: int, seed: int = 0) -> np.ndarray:
    """(count, 1, 8, 8) float32."""
    generator = np.random.default_rng(seed)
    strength = generator.uniform(0, 2, size=(count, 1, 1, 1))
    return (strength * generator.normal(size=(count, 1, 8, 8)) + strength - 1).astype(np.float32)


def export(modules: Sequence[nn.Module], folder: Path) -> list[Path]:
    """One file per segment, as a pipeline would write them."""
    inputs, files = torch.zeros(2, 1, 8, 8), []
    for number, module in enumerate(modules, start=1):
        file, last = folder / f"segment_{number}.onnx", number == len(modules)
        exported = torch.onnx.export(
            module,
            (inputs,),
            dynamo=True,
            input_names=["input" if number == 1 else "hidden"],
            output_names=["logits"] if last else ["logits", "handed_on"],
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            verbose=False,
        )
        assert exported is not None
        exported.save(str(file))
        files.append(file)
        if not last:
            inputs = module(inputs)[1].detach()
    return files


def quantize(files: Sequence[Path], modules: Sequence[nn.Module], folder: Path) -> list[Path]:
    """The same segments with int8 weights and activations, QDQ."""
    hidden, quantized = torch.from_numpy(samples(32, seed=5)), list[Path]()
    for file, module in zip(files, modules, strict=True):
        name = "input" if not quantized else "hidden"
        out = folder / f"{file.stem}_int8.onnx"
        quantize_static(
            str(file),
            str(out),
            _Given(name, hidden.detach().numpy()),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        quantized.append(out)
        given = module(hidden)
        hidden = given[1] if isinstance(given, tuple) else hidden
    return quantized


class _Given(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: np.ndarray) -> None:
        self.batches = iter([{name: inputs}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)
