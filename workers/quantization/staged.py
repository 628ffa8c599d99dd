"""A model with exits as one network, so that it is quantized like any other, and cut into segments again.

The network gives what its segments give, first to last: logits (N, classes), what is handed on, logits …,
2M - 1 outputs for M segments. A model without exits is one segment. Ranges, corrections and the choice of
layers then see the samples as they come through the float segments before.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, compose, helper, numpy_helper
from onnx.utils import Extractor

from workers.base import INPUT_NAME, OUTPUT_NAME, Candidate
from workers.calibration.path_times import forced_paths
from workers.deploy.one_file import compose_one_file, opsets, renamed

#: What gives a float for an integer or a half float; done behind a cut, less is handed on.
WIDENING = ("DequantizeLinear", "Cast")


def join(segments: Sequence[Path]) -> ModelProto:
    """All segments one after the other, nothing skipped. Raises StepFailed where they do not fit together."""
    models = renamed([onnx.load(str(file)) for file in segments])
    graph = helper.make_graph(
        [node for model in models for node in model.graph.node],
        "joined",
        [models[0].graph.input[0]],
        [output for model in models for output in model.graph.output],
        [tensor for model in models for tensor in model.graph.initializer],
    )
    version = max(model.ir_version for model in models)
    return helper.make_model(graph, opset_imports=opsets(models, segments), ir_version=version)


def save(model: ModelProto, file: Path) -> None:
    """Write the network; of several segments with all their logits, (N, M, classes), as the first output."""
    model = copy.deepcopy(model)
    graph = model.graph
    del graph.value_info[:]
    answers = [output.name for output in graph.output[::2]]
    if len(answers) > 1:
        flat, shape = f"{OUTPUT_NAME}/flat", f"{OUTPUT_NAME}/shape"
        graph.initializer.append(numpy_helper.from_array(np.array([0, len(answers), -1]), shape))
        graph.node.append(helper.make_node("Concat", answers, [flat], axis=1))
        graph.node.append(helper.make_node("Reshape", [flat, shape], [OUTPUT_NAME]))
        stacked = helper.make_tensor_value_info(
            OUTPUT_NAME, onnx.TensorProto.FLOAT, ["N", len(answers), None]
        )
        graph.output.insert(0, stacked)
    onnx.save(model, file)


def cut(file: Path, folder: Path) -> list[Path]:
    """The segments of a file that `save` wrote, as `segment1.onnx` … in `folder`.

    What is handed on stays in the integers or half floats that it is computed in.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(file))
    folder.mkdir(exist_ok=True)
    extractor = Extractor(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    _, *outputs = model.graph.output
    starts, files = [INPUT_NAME], list[Path]()
    for number, logits in enumerate(outputs[::2], start=1):
        ends = [logits.name]
        if 2 * number < len(outputs):
            ends.append(
                _as_computed(outputs[2 * number - 1], makers[outputs[2 * number - 1].name], extractor)
            )
        segment = extractor.extract_model([starts[-1]], ends)
        del segment.graph.value_info[:]
        _rename(segment, number)
        files.append(folder / f"segment{number}.onnx")
        onnx.save(segment, files[-1])
        starts.append(ends[-1])
    return files


@contextmanager
def timed_files(file: Path, model: Candidate, classes: Sequence[str], folder: Path) -> Iterator[list[Path]]:
    """What stands for a trial on the clock: its file, or one file per way out of a model with exits."""
    if model.exits is None:
        yield [file]
        return
    exits, composed = len(model.exits.cuts), folder / "composed.onnx"
    plan = model.exits.model_copy(update={"thresholds": (0.0,) * exits})
    compose_one_file(cut(file, folder / "segments"), plan, composed, model.spec, classes)
    with forced_paths(composed, exits, plan) as files:
        yield files


def _as_computed(output: ValueInfoProto, maker: NodeProto, extractor: Extractor) -> str:
    """The tensor that is made a float for this output; the output itself where none is."""
    if maker.op_type not in WIDENING:
        return output.name
    name = maker.input[0]
    value = copy.deepcopy(output)  # its shape is known
    value.name = name
    value.type.tensor_type.elem_type = extractor.value_infos[name].type.tensor_type.elem_type
    extractor.value_infos[name] = value
    return name


def _rename(segment: ModelProto, number: int) -> None:
    """Names as `workers.deploy.export.export_segments` gives them."""
    graph, prefix = segment.graph, f"segment_{number}/"
    tensors = {tensor.name for tensor in graph.initializer} | {
        name for node in graph.node for name in node.output
    }
    names = {name: name.removeprefix(prefix) for name in tensors}
    names[f"{prefix}handed_on"] = "handed_on_float"  # unless it is what is handed on
    if number > 1:
        names[graph.input[0].name] = "hidden"
    names |= dict(zip((output.name for output in graph.output), (OUTPUT_NAME, "handed_on"), strict=False))
    compose.add_prefix_graph(
        graph, "", rename_edges=False, rename_inputs=False, rename_outputs=False, rename_initializers=False,
        rename_value_infos=False, inplace=True, name_map=names,
    )  # fmt: skip
