"""Static int8 by Intel's NNCF, which picks ranges, corrects biases and places the quantizers its own way."""

import copy
import importlib.util
import os

from onnx import ModelProto

from workers.base import INPUT_NAME, Context
from workers.errors import SomethingMissing
from workers.quantization.network import Network
from workers.quantization.probes import calibration_batches
from workers.quantization.scheme import Scheme
from workers.quantization.writing import Writer


def nncf_is_installed() -> bool:
    return importlib.util.find_spec("nncf") is not None


def by_nncf(network: Network, scheme: Scheme, context: Context, samples: int) -> Writer:
    """Raises SomethingMissing without NNCF."""
    if not nncf_is_installed():
        raise SomethingMissing(
            "quantization: engine nncf",
            "NNCF is not installed.",
            "Install it: pip install 'paredown[openvino]'. Or use engine: onnxruntime.",
        )
    os.environ.setdefault("NNCF_CI", "1")  # else it reports to its maker how it is used
    import nncf

    overflow = nncf.quantization.advanced_parameters.OverflowFix
    calibration = list(calibration_batches(context, samples, 1))

    def write(in_float: frozenset[str]) -> ModelProto:
        model: ModelProto = nncf.quantize(
            copy.deepcopy(network.model),
            nncf.Dataset([{INPUT_NAME: batch} for batch in calibration]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=sorted(in_float)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=overflow.ENABLE if scheme.reduce_range else overflow.DISABLE
            ),
        )
        return model

    return write
