"""Which range of an activation the 256 integers stand for, chosen per tensor.

A wide range clips nothing and rounds coarsely, a narrow one the other way round. Every range is tried on
what the layers behind the tensor make of it: the one with the highest signal to quantization noise wins.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from workers.base import Context
from workers.quantization.network import Network
from workers.quantization.probes import Probes, affine, calibration_batches

#: Range of a tensor, (low, high).
Range = tuple[float, float]
BINS = 2048
#: Of the values of a tensor, this many per batch are drawn for its histogram.
DRAWN = 1 << 17
#: Activations of one batch that are kept at a time.
BATCH_BYTES = 128 << 20
MAX_BATCH = 32
#: The trials of all ranges cost several times a plain run; the noise of a range shows on few samples.
TRIED_SAMPLES = 64
PERCENTILES = {"99.99 %": 0.9999, "99.9 %": 0.999}
SHRINKS = np.linspace(0.2, 1.0, 41)


def extremes(network: Network, tensors: Sequence[str], context: Context, samples: int) -> dict[str, Range]:
    """Smallest and largest value of each tensor over the calibration samples."""
    probes = Probes(network.model)
    for name in tensors:
        probes.give(probes.add("ReduceMin", [name], f"{name}_low", keepdims=0))
        probes.give(probes.add("ReduceMax", [name], f"{name}_high", keepdims=0))
    found: dict[str, Range] = {}
    for _, values in probes.run(calibration_batches(context, samples, 8)):
        for name in tensors:
            low, high = float(values[f"{name}_low"]), float(values[f"{name}_high"])
            before = found.get(name, (low, high))
            found[name] = min(before[0], low), max(before[1], high)
    return found


def histograms(
    network: Network, limits: Mapping[str, Range], context: Context, samples: int
) -> dict[str, np.ndarray]:
    """(BINS,) counts between the limits of each tensor, from values drawn at random."""
    probes = Probes(network.model)
    for name in limits:
        probes.give(name)
    generator = np.random.default_rng(context.seed)
    counts = {name: np.zeros(BINS, np.int64) for name in limits}
    (_, first), *_ = probes.run(calibration_batches(context, 1, 1))
    batch_size = BATCH_BYTES // max(sum(value.nbytes for value in first.values()), 1)
    batches = calibration_batches(context, samples, min(max(batch_size, 1), MAX_BATCH))
    for _, values in probes.run(batches):
        for name, (low, high) in limits.items():
            drawn = values[name].ravel()
            if drawn.size > DRAWN:
                drawn = drawn[generator.integers(drawn.size, size=DRAWN)]
            places = ((drawn - low) * (BINS / max(high - low, 1e-30))).astype(np.int64)
            counts[name] += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)
    return counts


def candidates(counts: np.ndarray, limits: Range) -> dict[str, Range]:
    """Ranges to try, by the rule they come from."""
    edges = np.linspace(*limits, BINS + 1)
    found = {"min-max": limits}
    cumulative = np.cumsum(counts) / max(counts.sum(), 1)
    for rule, share in PERCENTILES.items():
        first, last = np.searchsorted(cumulative, [1 - share, share]).tolist()
        found[rule] = float(edges[first]), float(edges[min(last + 1, BINS)])
    found["least squares"] = _least_squares(counts, (edges[1:] + edges[:-1]) / 2, limits)
    return {rule: limits for rule, limits in found.items() if limits[0] < limits[1] or rule == "min-max"}


def _least_squares(counts: np.ndarray, centres: np.ndarray, limits: Range) -> Range:
    """The shrunk range with the smallest squared error of the histogram."""
    errors = []
    for shrink in SHRINKS:
        scale, zero_point = affine(limits[0] * shrink, limits[1] * shrink)
        integers = np.clip(np.rint(centres / scale) + zero_point, 0, 255)
        errors.append(float((counts * (centres - scale * (integers - zero_point)) ** 2).sum()))
    best = float(SHRINKS[int(np.argmin(errors))])
    return limits[0] * best, limits[1] * best


def chosen(
    network: Network,
    tried: Mapping[str, Mapping[str, Range]],
    context: Context,
    tell: Callable[[float], None] = lambda _: None,
) -> tuple[dict[str, Range], Counter[str]]:
    """The range of each tensor with the least noise behind it, and how often each rule won."""
    noises = _noises(network, tried, context, tell)
    best = {}
    for name, rules in tried.items():
        noise = {rule: noises[name, rule] for rule in rules}
        best[name] = min(noise, key=noise.__getitem__)
    return {name: tried[name][rule] for name, rule in best.items()}, Counter(best.values())


def _noises(
    network: Network,
    tried: Mapping[str, Mapping[str, Range]],
    context: Context,
    tell: Callable[[float], None],
) -> dict[tuple[str, str], float]:
    """Noise to signal power of every rule of every tensor, summed over the layers that read it."""
    probes = Probes(network.model)
    parts: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for number, (name, rules) in enumerate(tried.items()):
        for rule, limits in rules.items():
            label = f"probe{number}_{rule}"
            coarse = probes.quantized(name, *limits, label)
            parts[name, rule] = list(_differences(probes, network, name, coarse, label))
    sums: defaultdict[str, float] = defaultdict(float)
    done = 0
    for size, values in probes.run(calibration_batches(context, TRIED_SAMPLES, 4)):
        done += size
        tell(min(done / TRIED_SAMPLES, 1.0))
        for output, value in values.items():
            sums[output] += float(value)
    return {key: sum(sums[noise] / max(sums[power], 1e-30) for noise, power in pairs)
            for key, pairs in parts.items()}  # fmt: skip


def _differences(
    probes: Probes, network: Network, tensor: str, coarse: str, label: str
) -> Iterator[tuple[str, str]]:
    """Outputs with the noise that `coarse` in place of `tensor` makes, and with the signal's power."""
    nodes = {node.name: node for node in network.model.graph.node}
    readers = [layer for layer in network.layers if layer.input == tensor]
    for place, layer in enumerate(readers):
        node = nodes[layer.node]
        made = probes.add_like(node, [coarse, *node.input[1:]], f"{label}_{place}")
        yield _energy_of_difference(probes, made, layer.output), _energy(probes, layer.output)
    if not readers:
        yield _energy_of_difference(probes, coarse, tensor), _energy(probes, tensor)


def _energy_of_difference(probes: Probes, first: str, second: str) -> str:
    return _energy(probes, probes.add("Sub", [first, second], f"{first}_off"))


def _energy(probes: Probes, tensor: str) -> str:
    name = f"{tensor}_energy"
    if name not in probes.outputs:
        probes.give(probes.add("ReduceSumSquare", [tensor], name, keepdims=0))
    return name
