"""One layer alone in int8: its weights per channel and its input, everything else in float."""

from collections.abc import Mapping
from pathlib import Path

from workers.base import Candidate, Context
from workers.quantization.naming import module_names
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_of_host
from workers.quantization.staged import save
from workers.quantization.static import calibrate
from workers.quantization.writing import LAYERS, Writer, static

#: Ranges of single activations are known well enough from few samples.
CALIBRATION_SAMPLES = 64


class OneByOne:
    """Writes the network with one layer quantized, by the name of the layer in the graph.

    Ranges are chosen as the step `quantization` chooses them, on fewer samples and without corrected biases.
    Raises StepFailed for a network that is quantized already.
    """

    def __init__(self, candidate: Candidate, context: Context) -> None:
        folder = context.scratch / "float"
        folder.mkdir(parents=True, exist_ok=True)
        _, network = float_network(candidate, context.data.classes, folder)
        scheme = scheme_of_host()
        calibrated = calibrate(network, scheme, context, CALIBRATION_SAMPLES)
        self._write: Writer = static(network, calibrated.ranges, scheme, LAYERS)
        self._names: Mapping[str, str] = module_names(network, candidate.graph)

    @property
    def layers(self) -> set[str]:
        return set(self._names.values())

    def save(self, layer: str, file: Path) -> Path:
        save(self._write(frozenset(node for node, name in self._names.items() if name != layer)), file)
        return file
