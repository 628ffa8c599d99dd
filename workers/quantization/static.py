"""Static int8 from calibration samples: ranges, then biases, then the file."""

from collections import Counter
from collections.abc import Callable

from onnx import TensorProto

from workers.base import Context, Progress
from workers.quantization.correction import corrected
from workers.quantization.network import Network
from workers.quantization.ranges import Range, candidates, chosen, extremes, histograms
from workers.quantization.scheme import Scheme
from workers.quantization.writing import NARROW, WIDE, Writer, quantized_tensors, static


def static_writers(
    network: Network, scheme: Scheme, context: Context, samples: int
) -> tuple[dict[str, Writer], list[str]]:
    """Ways to write the network in int8, by what they are called; and notes for the reader."""
    ranges, rules = calibrated(network, scheme, context, samples)
    first = static(network, ranges, scheme, NARROW)(frozenset())
    network = corrected(network, first, ranges, context, samples)
    won = ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    notes = [
        f"Activation ranges were chosen by signal to quantization noise, for {sum(rules.values())} tensors: "
        f"{won}. Biases were corrected by the mean shift of each channel."
    ]
    writers = {
        "layers and what joins them": static(network, ranges, scheme, NARROW),
        "every operator": static(network, ranges, scheme, WIDE),
    }
    return writers, notes


def calibrated(
    network: Network, scheme: Scheme, context: Context, samples: int
) -> tuple[dict[str, Range], Counter[str]]:
    """The range of every activation, and how often each rule won for those that are quantized."""
    tell = _teller(context)
    tell("smallest and largest activations", 0.0)
    limits = extremes(network, float_tensors(network), context, samples)
    used = set()
    for operators in (NARROW, WIDE):
        used |= quantized_tensors(static(network, limits, scheme, operators)(frozenset()))
    tell("histograms of activations", 0.1)
    counts = histograms(network, {name: limits[name] for name in sorted(used)}, context, samples)
    tried = {name: candidates(counts[name], limits[name]) for name in counts}
    ranges, rules = chosen(network, tried, context, lambda share: tell("trying ranges", 0.2 + 0.3 * share))
    return {**limits, **ranges}, rules


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
