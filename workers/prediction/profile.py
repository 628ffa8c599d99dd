"""Where ONNX Runtime spends the time of a file, layer by layer."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from workers.measures.latency import WARM_UP_ROUNDS, alone
from workers.runtimes.onnxruntime import opened, session_options

#: Operators that layers of the network become.
PRODUCTS = ("Conv", "Gemm", "MatMul")
#: What ONNX Runtime appends to the name of a convolution whose channels it stores in blocks.
BLOCKED = "_nchwc"
#: Of the calls of a node, the share of fast ones that counts.
CALM = 0.5


def layer_times_us(
    file: Path, layers: Sequence[str], inputs: np.ndarray, *, threads: int, runs: int
) -> dict[str, float]:
    """Microseconds of each layer, with what comes behind it until the next one: activations, sums, pooling.

    file: as exported. layers: names of the network's layers, in the order of their calls.
    """
    owner = _owners(onnx.load(file, load_external_data=False), layers)
    found: dict[str, float] = defaultdict(float)
    last = layers[0]
    for name, time_us in _nodes(file, inputs, threads, runs):
        # Nodes that the runtime made itself convert for their neighbours.
        last = owner.get(name.removesuffix(BLOCKED), last)
        found[last] += time_us
    return dict(found)


def _nodes(file: Path, inputs: np.ndarray, threads: int, runs: int) -> Iterator[tuple[str, float]]:
    """Every node as it was run, in its order, and its time in microseconds."""
    with tempfile.TemporaryDirectory() as folder, alone(threads):
        session = opened(file, session_options(threads, profile=Path(folder) / "profile"))
        name = session.get_inputs()[0].name
        for _ in range(runs + WARM_UP_ROUNDS):
            session.run(None, {name: inputs})
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    for node, taken in times.items():
        calls = np.sort(taken[len(taken) * WARM_UP_ROUNDS // (runs + WARM_UP_ROUNDS) :])
        per_run = max(1, round(len(taken) / (runs + WARM_UP_ROUNDS)))
        yield node, float(calls[: max(1, int(len(calls) * CALM))].mean()) * per_run


def layer_nodes(model: ModelProto, layers: Sequence[str]) -> list[tuple[NodeProto, str]]:
    """The nodes that multiply with weights, and the layers that they are."""
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if _is_layer(node, constants)]
    names = [_named(node, set(layers)) for node in nodes]
    # Weights that the exporter transposed have lost their name: the order is left.
    missing = [layer for layer in layers if layer not in names]
    if names.count(None) == len(missing):
        rest = iter(missing)
        names = [name or next(rest) for name in names]
    return [(node, name) for node, name in zip(nodes, names, strict=True) if name is not None]


def _owners(model: ModelProto, layers: Sequence[str]) -> dict[str, str]:
    """By the name of a node and of what it gives: the layer that it is, or else the one before it."""
    owner = {node.name: layer for node, layer in layer_nodes(model, layers)}
    for node in model.graph.node:
        before = (owner[name] for name in node.input if name in owner)
        layer = owner.get(node.name) or next(before, None)
        if layer is not None:
            owner |= dict.fromkeys((node.name, *node.output), layer)
    return owner


def _is_layer(node: NodeProto, constants: set[str]) -> bool:
    return node.op_type in PRODUCTS and node.input[1] in constants


def _named(node: NodeProto, layers: set[str]) -> str | None:
    """The layer whose weight it takes; a factorised one has parts 0, 1 and 2."""
    name = node.input[1].removesuffix(".weight")
    whole = name.rpartition(".")[0]
    return name if name in layers else whole if whole in layers else None
