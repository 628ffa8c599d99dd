"""Files of a network in fewer bits. What they answer does not matter: ranges are made up."""

from pathlib import Path

import onnx

from workers.base import Candidate, ModelSpec
from workers.errors import StepFailed
from workers.quantization.network import Network, float_network
from workers.quantization.scheme import scheme_of_host
from workers.quantization.static import float_tensors
from workers.quantization.writing import NARROW, Writer, bfloat16, dynamic, float16, static

MADE_UP_RANGE = (-3.0, 3.0)
#: Of the method `quantization`; static and qat write the same file.
STATIC, OTHERS = "static", ("dynamic", "fp16", "bf16")


def rewrite(file: Path, written: Path, mode: str, spec: ModelSpec, folder: Path) -> None:
    """Raises StepFailed where this mode has nothing to write."""
    _, network = float_network(Candidate(spec, onnx=file), (), folder)
    onnx.save(_writer(network, mode)(frozenset()), written)


def _writer(network: Network, mode: str) -> Writer:
    if mode == "fp16":
        return float16(network)
    if mode == "bf16":
        return bfloat16(network)
    scheme = scheme_of_host()
    if mode == STATIC:
        return static(network, dict.fromkeys(float_tensors(network), MADE_UP_RANGE), scheme, NARROW)
    if all(layer.operator == "Conv" for layer in network.layers):
        raise StepFailed("quantization", "mode dynamic finds no matrix products.", "Use mode: static.")
    return dynamic(network, scheme)
