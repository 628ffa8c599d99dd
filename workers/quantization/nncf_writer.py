"""Static int8 by Intel's NNCF, which picks ranges, corrects biases and places the quantizers its own way."""

import contextlib
import copy
import importlib.util
import io
import logging
import os
import re
from collections.abc import Iterator, Set

import numpy as np
from onnx import ModelProto

from workers.base import INPUT_NAME, Context
from workers.errors import SomethingMissing
from workers.quantization.network import Network
from workers.quantization.probes import calibration_batches
from workers.quantization.scheme import Scheme
from workers.quantization.writing import Writer

#: What NNCF makes of the name of a weight.
_QUANTIZED = re.compile(r"q_output_(.+)_\d+")


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

    nncf.set_log_level(logging.ERROR)
    overflow = nncf.quantization.advanced_parameters.OverflowFix
    fix = overflow.ENABLE if scheme.reduce_range else overflow.DISABLE

    def write(in_float: frozenset[str]) -> ModelProto:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            model: ModelProto = nncf.quantize(
                copy.deepcopy(network.model),
                nncf.Dataset(_Samples(context, samples)),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=min(samples, len(context.data.labels("calibration"))),
                ignored_scope=nncf.IgnoredScope(names=sorted(in_float)),
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
            )
        _call_as_before(model, {tensor.name for tensor in network.model.graph.initializer})
        return model

    return write


def _call_as_before(model: ModelProto, names: Set[str]) -> None:
    """Weights get their own names back: by those a profile of the file tells the layers of the model."""
    taken = {tensor.name for tensor in model.graph.initializer}
    renamed = {}
    for tensor in model.graph.initializer:
        found = _QUANTIZED.fullmatch(tensor.name)
        if found and found[1] in names - taken:
            renamed[tensor.name] = found[1]
            tensor.name = found[1]
            taken.add(found[1])
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


class _Samples:
    """The calibration samples one by one, as often as NNCF wants to see them."""

    def __init__(self, context: Context, samples: int) -> None:
        self.context, self.samples = context, samples

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for batch in calibration_batches(self.context, self.samples, 1):
            yield {INPUT_NAME: batch}
