"""Run a model with exits segment by segment; only the samples still undecided go on.

A segment takes the samples (the first one) or what the segment before it hands on, and gives its exit's
logits (N, classes) and what it hands on, a tensor with leading N; the last one gives logits only.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from workers.base import ExitPlan, Session
from workers.exits.scores import agreement, exit_scores
from workers.runtimes.onnxruntime import OnnxRuntime

#: inputs -> logits, and what is handed on (an array or a tensor; the last segment hands on nothing).
Segment = Callable[[Any], tuple[np.ndarray, Any]]


def onnx_segments(files: Sequence[Path], *, threads: int) -> list[Segment]:
    """Open the segments' files in ONNX Runtime; outputs are told apart by their place, logits first."""
    return [_onnx_segment(OnnxRuntime().open(file, threads=threads).outputs) for file in files]


def _onnx_segment(outputs: Callable[[np.ndarray], list[np.ndarray]]) -> Segment:
    def call(inputs: np.ndarray) -> tuple[np.ndarray, Any]:
        logits, *handed_on = outputs(inputs)
        return logits, handed_on[0] if handed_on else None

    return call


def torch_segments(modules: Sequence[nn.Module]) -> list[Segment]:
    """Modules in evaluation mode, each giving (logits, hidden), the last one logits."""
    return [_torch_segment(module.eval()) for module in modules]


def _torch_segment(module: nn.Module) -> Segment:
    def call(inputs: np.ndarray | torch.Tensor) -> tuple[np.ndarray, Any]:
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            given = module(torch.as_tensor(inputs, device=device))
        logits, handed_on = given if isinstance(given, tuple) else (given, None)
        return logits.cpu().numpy(), handed_on

    return call


@dataclass(frozen=True)
class Executor(Session):
    """Segments and a calibrated plan, ready to be called with any number of samples."""

    segments: Sequence[Segment]
    plan: ExitPlan

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """(N, ...) float32 -> logits (N, classes) of the exit that each sample takes."""
        return self.decide(inputs)[0]

    def decide(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, ...) float32 -> logits (N, classes), exit (N,) int64, 1 to exits + 1; each row for itself."""
        thresholds = self.plan.thresholds
        assert thresholds is not None, "the plan is not calibrated"
        undecided, hidden = np.arange(len(inputs)), inputs
        answers = np.empty((len(inputs), 0), np.int64)
        taken = np.empty(len(inputs), np.int64)
        for number, segment in enumerate(self.segments, start=1):
            logits, hidden = segment(hidden)
            if number == 1:
                result = np.empty_like(logits)
            if number > len(thresholds):
                stay = np.zeros(len(undecided), bool)
            else:
                answers = np.column_stack([answers, logits.argmax(axis=1)])
                stay = ~(self._scores(number, logits, answers) > np.float32(thresholds[number - 1]))
            result[undecided[~stay]], taken[undecided[~stay]] = logits[~stay], number
            if not stay.any():
                break
            if not stay.all():  # copying everything would cost more than nothing
                undecided, answers = undecided[stay], answers[stay]
                hidden = hidden[np.flatnonzero(stay)]
        return result, taken

    def _scores(self, number: int, logits: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """(N,) of exit `number`; answers: (N, number), of the exits so far."""
        if self.plan.score == "patience":
            return agreement(answers)[:, -1]
        temperature = (self.plan.temperatures or (1.0,) * number)[number - 1]
        return exit_scores(self.plan.score, logits[:, None], (temperature,))[:, 0]


def all_logits(segments: Sequence[Segment], batches: Iterable[np.ndarray]) -> np.ndarray:
    """Run everything to the end: (N, exits + 1, classes) float32."""
    found = []
    for inputs in batches:
        hidden, logits = inputs, []
        for segment in segments:
            given, hidden = segment(hidden)
            logits.append(given)
        found.append(np.stack(logits, axis=1))
    return np.concatenate(found)
