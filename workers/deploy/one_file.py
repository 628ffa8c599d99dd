"""Segments of a model with exits as one standard ONNX file that stops early: nested `If`, each later segment
with its weights inside the branch that runs it (outside, the runtime would not prepare them beforehand).

Input `input`; outputs `logits` (N, classes) of the exit taken and `exit` (N,) int64, 1 to exits + 1. A batch
leaves when all of its rows are sure. Thresholds and temperatures are initialisers of the outer graph,
`exit_1_threshold`, `exit_1_temperature` and so on: they can be changed in the file, without exporting again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, compose, helper, inliner
from onnx.numpy_helper import from_array

from workers.base import INPUT_NAME, OUTPUT_NAME, ExitPlan, ModelSpec
from workers.deploy.decision import decision_constants, decision_nodes
from workers.deploy.export import save_model, write_model
from workers.errors import StepFailed

EXIT_NAME = "exit"
#: The first one in which reductions take their axes as an input.
LEAST_OPSET = 18


def compose_one_file(
    segments: Sequence[Path], plan: ExitPlan, path: Path, spec: ModelSpec, classes: Sequence[str]
) -> None:
    """Write `path`; it appears whole or not at all.

    segments: first to last; the first output of each is its logits, the second what it hands on.
    plan: calibrated. Raises StepFailed for segments that cannot be put together.
    """
    assert plan.thresholds is not None, "the plan is not calibrated"
    assert len(segments) == len(plan.thresholds) + 1
    models = renamed([onnx.load(str(file)) for file in segments])
    graph = _nested([model.graph for model in models], plan)
    graph.input.append(models[0].graph.input[0])
    graph.initializer.extend(_settings(plan, spec.classes))
    write_model(
        helper.make_model(
            graph,
            opset_imports=opsets(models, segments),
            ir_version=max(model.ir_version for model in models),
            producer_name=models[0].producer_name,
            producer_version=models[0].producer_version,
        ),
        path,
        spec,
        classes,
    )


def set_thresholds(path: Path, thresholds: Sequence[float]) -> None:
    """Change the thresholds of a file, one per exit; everything else stays as it is.

    Raises StepFailed when the file has another number of exits.
    """
    model = onnx.load(str(path))
    found = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith("_threshold")}
    if len(found) != len(thresholds):
        raise StepFailed(
            path.name,
            f"has {len(found)} exits, and {len(thresholds)} thresholds were given.",
            "Give one threshold per exit.",
        )
    for number, threshold in enumerate(thresholds, start=1):
        name = f"exit_{number}_threshold"
        found[name].CopyFrom(from_array(np.array(threshold, np.float32), name))
    save_model(model, path)


def renamed(models: list[ModelProto]) -> list[ModelProto]:
    """Each segment with names of its own, reading what the one before it hands on."""
    renamed: list[ModelProto] = []
    for number, model in enumerate(map(inliner.inline_local_functions, models), start=1):
        graph, prefix = model.graph, f"segment_{number}/"
        del graph.value_info[:]
        # Known beforehand, so that graphs inside of nodes are renamed along with it.
        names = {tensor.name: prefix + tensor.name for tensor in graph.initializer}
        names[graph.input[0].name] = renamed[-1].graph.output[1].name if renamed else INPUT_NAME
        compose.add_prefix_graph(graph, prefix, rename_inputs=False, inplace=True, name_map=names)
        renamed.append(model)
    return renamed


def _nested(segments: Sequence[GraphProto], plan: ExitPlan) -> GraphProto:
    """The last segment inside the one before it, and so on to the first; outputs `logits` and `exit`."""
    graph = GraphProto()
    for number in range(len(segments), 0, -1):
        segment = segments[number - 1]
        nodes, logits = list(segment.node), segment.output[0]
        outputs = _outputs(logits, f"at_{number}/" if number > 1 else "")
        if number == len(segments):
            nodes += _leaving(logits.name, outputs, number)
        else:
            taken = _outputs(logits, f"exit_{number}/taken/")
            branch = helper.make_graph(_leaving(logits.name, taken, number), f"exit_{number}", [], taken)
            nodes += decision_nodes(plan.score, logits.name, number)
            nodes.append(
                helper.make_node(
                    "If",
                    [f"exit_{number}/sure"],
                    [output.name for output in outputs],
                    name=f"exit_{number}/if",
                    then_branch=branch,
                    else_branch=graph,
                )
            )
        graph = helper.make_graph(nodes, f"segment_{number}", [], outputs, list(segment.initializer))
    return graph


def _outputs(logits: ValueInfoProto, prefix: str) -> list[ValueInfoProto]:
    classes = logits.type.tensor_type.shape.dim[1].dim_value
    return [
        helper.make_tensor_value_info(prefix + OUTPUT_NAME, TensorProto.FLOAT, ["N", classes]),
        helper.make_tensor_value_info(prefix + EXIT_NAME, TensorProto.INT64, ["N"]),
    ]


def _leaving(logits: str, outputs: Sequence[ValueInfoProto], number: int) -> list[NodeProto]:
    """The answer is these logits, and every row left at this number."""
    given, exit_ = (output.name for output in outputs)
    constant = helper.make_tensor("number", TensorProto.INT64, [1], [number])
    return [
        helper.make_node("Identity", [logits], [given], name=given),
        helper.make_node("Shape", [logits], [f"{exit_}/rows"], name=f"{exit_}/rows", start=0, end=1),
        helper.make_node("ConstantOfShape", [f"{exit_}/rows"], [exit_], name=exit_, value=constant),
    ]


def _settings(plan: ExitPlan, classes: int) -> list[TensorProto]:
    thresholds = plan.thresholds or ()
    settings = {f"exit_{number}_threshold": value for number, value in enumerate(thresholds, start=1)}
    if plan.score != "patience":  # it looks at answers alone
        temperatures = (plan.temperatures or (1.0,) * len(thresholds))[: len(thresholds)]
        settings |= {
            f"exit_{number}_temperature": value for number, value in enumerate(temperatures, start=1)
        }
    scalars = [from_array(np.array(value, np.float32), name) for name, value in settings.items()]
    return [*scalars, *decision_constants(plan.score, classes)]


def opsets(models: Sequence[ModelProto], files: Sequence[Path]) -> list[onnx.OperatorSetIdProto]:
    """Of all segments together; one version per domain. Raises StepFailed for several."""
    found: dict[str, int] = {}
    for model, file in zip(models, files, strict=True):
        for opset in model.opset_import:
            if found.setdefault(opset.domain, opset.version) != opset.version:
                raise StepFailed(
                    file.name,
                    f"uses version {opset.version} of the operators {opset.domain or 'ai.onnx'!r}, and the "
                    f"segments before it version {found[opset.domain]}.",
                    "Export all segments the same way.",
                )
    if found.get("", 0) < LEAST_OPSET:
        raise StepFailed(
            files[0].name,
            f"uses version {found.get('', 0)} of the ONNX operators; exits need {LEAST_OPSET}.",
            "Export the segments again with a newer opset.",
        )
    return [helper.make_opsetid(domain, version) for domain, version in found.items()]
