"""ONNX Runtime on the processor."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from workers.base import Runtime, Session
from workers.errors import ModelRefused

ERRORS_ONLY = 3


class OnnxRuntime(Runtime):
    """ONNX Runtime, CPU execution provider."""

    title = "ONNX Runtime"

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> "OnnxRuntimeSession":
        """Load a file; its threads inherit the core affinity of the calling thread.

        optimize: False runs the graph as written, e.g. to compare it with the model it came from.
        Raises ModelRefused when ONNX Runtime cannot load the file.
        """
        try:
            session = ort.InferenceSession(file, _options(threads, optimize), ["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no other base
            raise ModelRefused(
                file.name,
                f"ONNX Runtime {ort.__version__} cannot load it: {str(error).replace(str(file), file.name)}",
                "Export it again, with an opset this version knows.",
            ) from error
        return OnnxRuntimeSession(session)


class OnnxRuntimeSession(Session):
    """One input; the first output is the logits."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, inputs: np.ndarray) -> np.ndarray:
        (logits,) = self._session.run([self._output], {self._input: inputs})
        return np.asarray(logits)

    def outputs(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Everything the file gives, in its order."""
        return [np.asarray(output) for output in self._session.run(None, {self._input: inputs})]


def _options(threads: int, optimize: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = ERRORS_ONLY
    # Threads that spin while they wait would take the core from the next model in the round.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
