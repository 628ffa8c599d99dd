"""Write a candidate as one standard ONNX file: input `input` (N, C, H, W) float32 after preprocessing,
output `logits` (N, classes), dynamic N.

The file says how to preprocess and what the classes are called, and nothing about who made it: exporters
leave stack traces, class names and source lines in the metadata; all of it is removed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import Message
from onnx import ModelProto
from torch import nn

from workers.base import INPUT_NAME, OUTPUT_NAME, Candidate, ModelSpec
from workers.errors import StepFailed
from workers.exits.staging import hidden_shapes, segments
from workers.graph.to_onnx import to_onnx
from workers.writing import written_whole

#: More a protobuf cannot hold.
MAX_BYTES = 2**31 - 1


def export_segments(candidate: Candidate, path: Path) -> list[Path]:
    """Write `model.segment1.onnx` … beside `path`: from `input` or `hidden` to `logits` and `handed_on`.

    The last one gives `logits` alone; dynamic N. What is handed on is the next one's `hidden`: one name for
    both would not be valid in the segments between. Those of a model without a graph stay as they are.
    """
    files = []
    for number, given in enumerate(_segments(candidate), start=1):
        _anonymize(given)
        files.append(path.with_name(f"{path.stem}.segment{number}.onnx"))
        save_model(given, files[-1])
    return files


def _segments(candidate: Candidate) -> Iterator[ModelProto]:
    if candidate.graph is None:
        yield from (onnx.load(str(file)) for file in candidate.segments)
        return
    shape = candidate.spec.preprocessing.shape
    hidden = hidden_shapes(candidate.graph, shape)
    for number, segment in enumerate(segments(candidate.graph, shape)):
        yield to_onnx(
            segment,
            hidden[number - 1] if number else shape,
            given="hidden" if number else INPUT_NAME,
            results=(OUTPUT_NAME, "handed_on") if number < len(hidden) else (OUTPUT_NAME,),
        )


def export_onnx(candidate: Candidate, path: Path, classes: Sequence[str]) -> None:
    """Write `path`; it appears whole or not at all. An uploaded ONNX file keeps its graph as it is."""
    if candidate.graph is None:
        assert candidate.onnx is not None
        model = onnx.load(str(candidate.onnx))
    else:
        model = to_onnx(candidate.graph, candidate.spec.preprocessing.shape)
    write_model(model, path, candidate.spec, classes)


def write_model(model: ModelProto, path: Path, spec: ModelSpec, classes: Sequence[str]) -> None:
    """Write `path` whole or not at all, with what a user needs to know and nothing about who made it."""
    _anonymize(model)
    props = {"preprocessing": spec.preprocessing.model_dump_json(), "classes": json.dumps(list(classes))}
    onnx.helper.set_model_props(model, props)
    save_model(model, path)


def export_layer(layer: nn.Module, shape: Sequence[int], path: Path) -> None:
    """Write one layer as a file of its own, to time it. shape: of its input, without the batch."""
    onnx.save(to_onnx(layer, shape), str(path))


def save_model(model: ModelProto, path: Path) -> None:
    """Write `path` whole or not at all. Raises StepFailed when the format cannot hold that much."""
    if model.ByteSize() > MAX_BYTES:
        raise StepFailed(
            path.name,
            f"would be {model.ByteSize():,} bytes long; one ONNX file holds at most {MAX_BYTES:,}.",
            "Make the model smaller: prune it more.",
        )
    with written_whole(path) as partial:
        onnx.save(model, str(partial))


def _anonymize(model: ModelProto) -> None:
    _blank(model)
    model.graph.name = "paredown"


def _blank(message: Message) -> None:
    """Models, graphs, functions, nodes, tensors and values have these two fields, and parts of their own."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type:
            for part in value if field.is_repeated else [value]:
                _blank(part)
