"""How many weights a model has."""

from collections.abc import Sequence
from pathlib import Path

from workers.base import Artefact, Bench, Measure, Measurement
from workers.deploy.weights import weight_types


class Parameters(Measure):
    """Trainable parameters of the graph, or else the weights stored in the file."""

    title = "Parameters"
    unit = "weights"
    better = "lower"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:  # noqa: ARG002
        return [
            [Measurement(name="parameters", value=_count(artefact), unit=self.unit, better=self.better)]
            for artefact in artefacts
        ]


def _count(artefact: Artefact) -> int:
    if artefact.candidate.graph is not None:
        return sum(parameter.numel() for parameter in artefact.candidate.graph.parameters())
    return count_weights(artefact.file)


def count_weights(file: Path) -> int:
    """Weights in an ONNX file, float or quantized."""
    return sum(weight_types(file).values())
