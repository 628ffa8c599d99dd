"""Write a candidate as one standard ONNX file: input `input` (N, C, H, W) float32 after preprocessing,
output `logits` (N, classes), dynamic N.

The file says how to preprocess and what the classes are called, and nothing about who made it: exporters
leave stack traces, class names and source lines in the metadata; all of it is removed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto

from workers.base import INPUT_NAME, OUTPUT_NAME, Candidate
from workers.graph.archive import trace
from workers.graph.onnx_file import subgraphs


def export_onnx(candidate: Candidate, path: Path, classes: Sequence[str]) -> None:
    """Write `path`; it appears whole or not at all. An uploaded ONNX file keeps its graph as it is."""
    if candidate.graph is None:
        assert candidate.onnx is not None
        model = onnx.load(str(candidate.onnx))
    else:
        program = trace(candidate.graph, candidate.spec.preprocessing)
        exported = torch.onnx.export(
            program, (), dynamo=True, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME], verbose=False
        )
        assert exported is not None
        model = exported.model_proto
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
        del model.graph.value_info[:]  # shapes of intermediates, with the exporter's own symbol for N
    _anonymize(model)
    onnx.helper.set_model_props(
        model,
        {
            "preprocessing": candidate.spec.preprocessing.model_dump_json(),
            "classes": json.dumps(list(classes)),
        },
    )
    partial = path.with_suffix(".partial")
    onnx.save(model, str(partial))
    partial.replace(path)


def _anonymize(model: ModelProto) -> None:
    model.doc_string, model.graph.name = "", "paredown"
    del model.metadata_props[:]
    for function in model.functions:
        _blank(function, *function.node)
    for graph in subgraphs(model.graph):
        _blank(graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)


def _blank(*parts: Any) -> None:
    """Graphs, nodes, tensors and values share these two fields, but no type."""
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
