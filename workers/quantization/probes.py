"""Sums over the calibration samples, taken inside the network: only scalars and channel vectors come out.

Memory then does not grow with the number of samples.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from workers.base import INPUT_NAME, Context
from workers.errors import StepFailed
from workers.host import logical_cores
from workers.runtimes.onnxruntime import ERRORS_ONLY
from workers.turns import training_turn


class Probes:
    """A copy of a model that also computes other things; what it gives is fetched by name."""

    def __init__(self, model: ModelProto) -> None:
        self.model = copy.deepcopy(model)
        self.outputs: list[str] = []

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: int) -> str:
        """One more node; gives its output's name."""
        node = helper.make_node(operator, inputs, [output])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.model.graph.node.append(node)
        return output

    def add_like(self, node: NodeProto, inputs: Sequence[str], output: str) -> str:
        """A node with the operator and attributes of another one."""
        twin = copy.deepcopy(node)
        twin.name, twin.input[:], twin.output[:] = "", inputs, [output]
        self.model.graph.node.append(twin)
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def quantized(self, tensor: str, low: float, high: float, label: str) -> str:
        """`tensor` as it is after uint8 with this range."""
        scale, zero_point = affine(low, high)
        grid = [
            self.constant(f"{label}_scale", np.array(scale, np.float32)),
            self.constant(f"{label}_zero_point", np.array(zero_point, np.uint8)),
        ]
        integers = self.add("QuantizeLinear", [tensor, *grid], f"{label}_integers")
        return self.add("DequantizeLinear", [integers, *grid], f"{label}_again")

    def give(self, name: str) -> None:
        self.outputs.append(name)

    def run(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The number of samples and the outputs, one batch after the other."""
        del self.model.graph.output[:]
        self.model.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs
        )
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = logical_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for inputs in batches:
            with training_turn():
                values = session.run(self.outputs, {INPUT_NAME: inputs})
            yield len(inputs), dict(zip(self.outputs, map(np.asarray, values), strict=True))


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 for [low, high], which is widened to hold 0 exactly.

    real = scale * (integer - zero point), Jacob et al. 2018 (arXiv:1712.05877), equation 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    if scale < np.finfo(np.float32).tiny:
        return 1.0, 0
    return scale, round(-low / scale)


def calibration_batches(context: Context, samples: int, batch_size: int) -> Iterator[np.ndarray]:
    """(N, C, H, W) float32: up to `samples` of the calibration split, drawn with the run's seed.

    Raises StepFailed when the split is empty.
    """
    if not len(context.data.labels("calibration")):
        raise StepFailed(
            "quantization", "the calibration split is empty.", "Bring samples for it, or use mode: dynamic."
        )
    left = samples
    for inputs, _ in context.data.batches("calibration", batch_size, shuffle=context.seed):
        yield inputs.numpy()[:left]
        left -= len(inputs)
        if left <= 0:
            return
