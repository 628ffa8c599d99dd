"""A module as an ONNX model with a dynamic batch; the file that a user gets is made in `workers.deploy`."""

from collections.abc import Sequence

import torch
from onnx import ModelProto
from torch import nn

from workers.base import INPUT_NAME, OUTPUT_NAME
from workers.graph.archive import trace_shape


def to_onnx(
    module: nn.Module,
    shape: Sequence[int],
    *,
    given: str = INPUT_NAME,
    results: Sequence[str] = (OUTPUT_NAME,),
) -> ModelProto:
    """shape: of the one input, without the batch. given, results: names of the input and the outputs."""
    exported = torch.onnx.export(
        trace_shape(module, shape),
        (),
        dynamo=True,
        input_names=[given],
        output_names=[*results],
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]  # shapes of intermediates, with the exporter's own symbol for N
    return model
