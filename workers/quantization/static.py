"""Static int8 from calibration samples: ranges, then biases, then the file."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from onnx import TensorProto

from workers.base import Context, Progress
from workers.quantization.correction import corrected
from workers.quantization.network import Network
from workers.quantization.ranges import Range, candidates, chosen, extremes, histograms
from workers.quantization.scheme import Scheme
from workers.quantization.writing import NARROW, WIDE, Writer, quantized_tensors, static


@dataclass(frozen=True)
class Calibrated:
    """A network with a range for every activation.

    simulated: those of tensors that a file with few operators quantizes, for training.
    """

    network: Network
    scheme: Scheme
    ranges: dict[str, Range]
    simulated: dict[str, Range]
    rules: Counter[str]

    @property
    def note(self) -> str:
        won = ", ".join(f"{rule} {count}" for rule, count in self.rules.most_common())
        return (
            f"Ranges of {sum(self.rules.values())} activations were chosen by signal to quantization noise "
            f"({won})."
        )

    def writers(self, *, wide: bool = True) -> dict[str, Writer]:
        """Ways to write the network in int8, by what they quantize."""
        writers = {"layers and what joins them": static(self.network, self.ranges, self.scheme, NARROW)}
        if wide:
            writers["every operator"] = static(self.network, self.ranges, self.scheme, WIDE)
        return writers

    def corrected(self, context: Context, samples: int) -> "Calibrated":
        """With biases that make up for the mean shift of each channel."""
        first = static(self.network, self.ranges, self.scheme, NARROW)(frozenset())
        network = corrected(self.network, first, self.ranges, context, samples)
        return dataclasses.replace(self, network=network)


def calibrate(network: Network, scheme: Scheme, context: Context, samples: int) -> Calibrated:
    """Choose the ranges on the calibration split; memory does not grow with `samples`."""
    tell = _teller(context)
    tell("smallest and largest activations", 0.0)
    limits = extremes(network, float_tensors(network), context, samples)
    narrow, wide = (
        quantized_tensors(static(network, limits, scheme, operators)(frozenset()))
        for operators in (NARROW, WIDE)
    )
    tell("histograms of activations", 0.1)
    counts = histograms(network, {name: limits[name] for name in sorted(narrow | wide)}, context, samples)
    tried = {name: candidates(counts[name], limits[name]) for name in counts}
    ranges, rules = chosen(network, tried, context, lambda share: tell("trying ranges", 0.2 + 0.3 * share))
    simulated = {name: ranges[name] for name in narrow}
    return Calibrated(network, scheme, {**limits, **ranges}, simulated, rules)


def float_tensors(network: Network) -> list[str]:
    """What quantizable operators read and give, without weights."""
    graph = network.model.graph
    infos = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    names = {
        name
        for node in graph.node
        if node.op_type in WIDE
        for name in (*node.input, *node.output)
        if name in infos and infos[name].type.tensor_type.elem_type == TensorProto.FLOAT
    }
    return sorted(names - network.weights.keys())


def _teller(context: Context) -> Callable[[str, float], None]:
    return lambda text, share: context.tell(Progress(text, share))
