"""A module as an ONNX model; the file that a user gets is made in `workers.deploy`."""

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
    batch: int | None = None,
) -> ModelProto:
    """shape: of the one input, without the batch. given, results: names of the input and the outputs.

    batch: the only one that the model takes; None for any.
    """
    exported = torch.onnx.export(
        trace_shape(module, shape, batch),
        (),
        dynamo=True,
        input_names=[given],
        output_names=[*results],
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for value in (*model.graph.input, *model.graph.output) if batch is None else ():
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]  # shapes of intermediates, with the exporter's own symbol for N
    return model
