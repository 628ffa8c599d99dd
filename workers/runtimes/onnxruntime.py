"""ONNX Runtime, on the processor or through another of its execution providers."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime as ort

from workers.base import Runtime, Session
from workers.errors import ModelRefused

ERRORS_ONLY = 3
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


class OnnxRuntime(Runtime):
    """device: the execution provider, one of PROVIDERS."""

    title = "ONNX Runtime"
    package = "onnxruntime"
    install: ClassVar[str] = "pip install onnxruntime"
    stops_early = True

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        there = set(ort.get_available_providers())
        return tuple(device for device, provider in PROVIDERS.items() if provider in there)

    @classmethod
    def version(cls) -> str:
        return str(ort.__version__)  # the package's name differs from build to build

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> "OnnxRuntimeSession":
        """Load a file; its threads inherit the core affinity of the calling thread.

        optimize: False runs the graph as written, e.g. to compare it with the model it came from.
        Raises ModelRefused when ONNX Runtime cannot load the file, or not on this device.
        """
        return OnnxRuntimeSession(opened(file, session_options(threads, optimize), PROVIDERS[self.device]))


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


def opened(file: Path, options: ort.SessionOptions, provider: str = PROVIDERS["cpu"]) -> ort.InferenceSession:
    """Raises ModelRefused when ONNX Runtime cannot load the file, or not with this provider."""
    try:
        session = ort.InferenceSession(file, options, [provider])
    except Exception as error:  # its exceptions share no other base
        raise ModelRefused(
            file.name,
            f"ONNX Runtime {ort.__version__} cannot load it: {str(error).replace(str(file), file.name)}",
            "Export it again, with an opset this version knows.",
        ) from error
    if provider not in session.get_providers():  # it goes on with the processor and only logs that
        raise ModelRefused(
            file.name,
            f"ONNX Runtime {ort.__version__} cannot use its {provider} here.",
            "Install the libraries that it asks for, or use --runtime onnxruntime.",
        )
    return session


def session_options(threads: int, optimize: bool = True, profile: Path | None = None) -> ort.SessionOptions:
    """profile: how the name of the file begins into which the time of every operator is written."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = ERRORS_ONLY
    # Threads that spin while they wait would take the core from the next model in the round.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return options
