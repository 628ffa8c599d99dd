"""Which layers go back to float when the integers cost too much accuracy.

Layers are ranked by what they give back for their time; the shortest beginning of that list that is
accurate enough is found by halving, with log2(layers) validations.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from workers.base import INPUT_NAME, Context, Progress
from workers.quantization.answers import divergence, logits
from workers.quantization.network import Network
from workers.quantization.staged import save
from workers.quantization.writing import Writer
from workers.runtimes.onnxruntime import ERRORS_ONLY
from workers.turns import measuring_turn

SCORED_SAMPLES = 128
TIMED_CALLS = 10


def ranked_layers(
    network: Network, write: Writer, quantized: Sequence[str], float_file: Path, context: Context
) -> list[str]:
    """`quantized` layers, those first that win back most divergence per time when they alone are float."""
    expected = logits(float_file, context, samples=SCORED_SAMPLES)
    file = context.scratch / "trial.onnx"
    save(write(frozenset()), file)
    start = divergence(expected, logits(file, context, samples=SCORED_SAMPLES))
    times = layer_times(float_file, network, context)
    scores = {}
    for number, layer in enumerate(quantized):
        save(write(frozenset([layer])), file)
        gain = start - divergence(expected, logits(file, context, samples=SCORED_SAMPLES))
        scores[layer] = gain / times[layer]
        context.tell(
            Progress(f"rating layer {number + 1} of {len(quantized)}", (number + 1) / len(quantized))
        )
    return sorted(quantized, key=lambda layer: -scores[layer])


def layer_times(file: Path, network: Network, context: Context) -> dict[str, float]:
    """Median seconds of each layer in the float file, by ONNX Runtime's profile."""
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = context.target.threads
    options.enable_profiling = True
    options.profile_file_prefix = str(context.scratch / "profile")
    # The names of the nodes must stay.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(file, options, ["CPUExecutionProvider"])
    inputs, _ = next(iter(context.data.batches("validation", context.target.batch)))
    with measuring_turn():
        for _ in range(TIMED_CALLS):
            session.run(None, {INPUT_NAME: inputs.numpy()})
    profile = Path(session.end_profiling())
    calls: dict[str, list[float]] = {}
    for event in json.loads(profile.read_text()):
        name = event["name"].removesuffix("_kernel_time")
        if event.get("cat") == "Node" and name != event["name"]:
            calls.setdefault(name, []).append(event["dur"] * 1e-6)
    profile.unlink()
    return {layer.node: max(float(np.median(calls[layer.node])), 1e-6) for layer in network.layers}


def shortest_prefix(ranked: Sequence[str], good: Callable[[frozenset[str]], bool]) -> frozenset[str] | None:
    """The fewest of the first layers that must be float for `good`; None when all but one are not enough.

    Assumes that more float is never worse. What is returned was itself seen to be good.
    """
    low, high, found = 0, len(ranked), None
    while high - low > 1:
        middle = (low + high) // 2
        if good(frozenset(ranked[:middle])):
            high, found = middle, frozenset(ranked[:middle])
        else:
            low = middle
    return found
