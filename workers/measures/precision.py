"""In how many bits the exported file stores a weight."""

from collections.abc import Sequence
from pathlib import Path

from workers.base import Artefact, Bench, Measure, Measurement
from workers.deploy.weights import weight_types

BITS = {"float64": 64, "int32": 32, "int64": 64, "bfloat16": 16, "float16": 16}
#: A type of fewer weights is not worth a word: biases of int8 layers are int32.
WORTH_A_WORD = 0.01


class Precision(Measure):
    """Bits per weight, over all weights; the marks name the types that hold at least 1 % of them."""

    title = "Precision"
    unit = "bits"
    better = "lower"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:  # noqa: ARG002
        return [[self._of_one(artefact.file)] for artefact in artefacts]

    def _of_one(self, file: Path) -> Measurement:
        types = weight_types(file)
        total = sum(types.values())
        named = [name for name, count in types.most_common() if count >= WORTH_A_WORD * total]
        bits = sum(count * _bits(name) for name, count in types.items())
        return Measurement(
            name="precision",
            value=bits / total if total else None,
            unit=self.unit,
            better=self.better,
            marks=(" and ".join(named),) if named else (),
        )


def _bits(name: str) -> int:
    if name in BITS:
        return BITS[name]
    return 32 if name == "float32" else 4 if "int4" in name else 8
