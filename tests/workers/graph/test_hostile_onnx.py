"""ONNX files that point elsewhere, lie about sizes, hide things in functions or never end."""

import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.workers.graph.conftest import Refused
from workers.base import Candidate
from workers.graph.importing import import_model
from workers.graph.inspection import inspect
from workers.graph.onnx_file import read_onnx

Look = Callable[[ModelProto], Any]
PICTURES: list[int | str] = ["N", 3, 8, 8]


def model_of(
    nodes: Sequence[NodeProto],
    weights: Sequence[TensorProto] = (),
    *,
    taken: Sequence[int | str] = PICTURES,
    given: Sequence[int | str] = ("N", 4),
    **more: Any,
) -> ModelProto:
    """(N, 3, 8, 8) -> pooled -> `nodes` from `pooled` (N, 3) and `weight` (3, 4) to `y` (N, 4)."""
    first = [
        helper.make_node("GlobalAveragePool", ["x"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["pooled"]),
    ]
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "weight")
    graph = helper.make_graph(
        [*first, *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)],
        [weight, *weights],
    )
    opsets = [
        helper.make_opsetid("", 18),
        helper.make_opsetid("custom", 1),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


HEAD = helper.make_node("MatMul", ["pooled", "weight"], ["y"])


@pytest.fixture
def look(tmp_path: Path, request_for: Callable[..., dict[str, Any]]) -> Look:
    """Check in this process; for what is refused before anything runs."""

    def check(model: ModelProto) -> Any:
        (tmp_path / "target").mkdir(exist_ok=True)
        path = tmp_path / "target" / "m.onnx"
        path.write_bytes(model.SerializeToString())
        return inspect(request_for(path), lambda _: None)

    return check


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Candidate]:
    """Check in the real child; for what could run."""

    def check(model: ModelProto, seconds: int = 120) -> Candidate:
        (tmp_path / "target").mkdir(exist_ok=True)
        path, kept = tmp_path / "target" / "m.onnx", tmp_path / "kept"
        path.write_bytes(model.SerializeToString())
        kept.mkdir()
        try:
            return import_model(path, kept, seconds=seconds)
        except Exception:
            assert [*kept.iterdir()] == []
            raise

    return check


def test_an_honest_one_is_taken(take: Callable[..., Candidate]) -> None:
    candidate = take(model_of([HEAD]))
    assert (candidate.spec.classes, candidate.spec.preprocessing.shape) == (4, (3, 8, 8))
    assert candidate.onnx
    kept = onnx.load(str(candidate.onnx))
    assert (kept.graph.input[0].name, kept.graph.output[0].name) == ("input", "logits")


def test_names_that_are_in_use_already(look: Look) -> None:
    """An inner value called `logits`, a weight called `input`: both survive the renaming."""
    names = {"weight": "input", "pooled": "logits"}
    model = model_of([HEAD])
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    model.graph.initializer[0].name = "input"
    assert look(model)["spec"]["classes"] == 4


def test_weights_listed_among_the_inputs(look: Look) -> None:
    model = model_of([HEAD], taken=(2, 3, 8, 8), given=(2, 4))
    model.graph.input.insert(0, helper.make_tensor_value_info("weight", TensorProto.FLOAT, [3, 4]))
    assert look(model)["spec"]["classes"] == 4


@pytest.mark.parametrize("location", ["/etc/passwd", "../../secret", "weights.bin"])
@pytest.mark.parametrize("inside", ["weight", "attribute", "branch", "function"])
def test_weights_in_another_file(location: str, inside: str, look: Look, refused: Refused) -> None:
    tensor = TensorProto(
        name="far", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=location)
    model = hidden(tensor, inside)
    with refused("keeps weights in another file"):
        look(model)


def hidden(tensor: TensorProto, inside: str) -> ModelProto:
    """The tensor as a weight, in a constant, in a branch's constant, or in that of a function."""
    if inside == "weight":
        return model_of([HEAD], [tensor])
    constant = helper.make_node("Constant", [], ["far"], value=tensor)
    if inside == "attribute":
        return model_of([constant, HEAD])
    if inside == "branch":
        graph = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("far", 1, [3, 4])])
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        return model_of(
            [helper.make_node("If", ["yes"], ["out"], then_branch=graph, else_branch=graph), HEAD], [yes]
        )
    function = helper.make_function(
        "custom", "F", ["a"], ["b"], [constant, _id("a", "b")], [helper.make_opsetid("", 18)]
    )
    return model_of([helper.make_node("F", ["pooled"], ["c"], domain="custom"), HEAD], functions=[function])


def _id(source: str, target: str) -> NodeProto:
    return helper.make_node("Identity", [source], [target])


@pytest.mark.parametrize(
    "dims", [[2**40], [10**6, 10**6], [-3, -4], [-1], [2**62, 2**62, 0], [1] * 40, [3, 5]], ids=str
)
def test_shapes_that_lie(dims: list[int], look: Look, refused: Refused) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 48)
    with refused("claims the shape|does not hold what it claims"):
        look(model_of([HEAD], [tensor]))


def test_a_million_dimensions(look: Look, refused: Refused) -> None:
    """Multiplying them would take minutes."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2**62] * 1_000_000, raw_data=b"\0" * 4)
    with refused("claims the shape"):
        look(model_of([HEAD], [tensor]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_that_are_not_finite(
    value: float, kind: str, raw: bool, look: Look, refused: Refused
) -> None:
    number = TensorProto.DataType.Value(kind)
    if raw:
        values = np.array([1, value]).astype(helper.tensor_dtype_to_np_dtype(number))
        tensor = helper.make_tensor("t", number, [2], values.tobytes(), raw=True)
    else:
        tensor = helper.make_tensor("t", number, [2], [1, value])
    with refused("m.onnx: t: holds NaN or infinite"):
        look(model_of([HEAD], [tensor]))


@pytest.mark.parametrize("inside", ["weight", "attribute", "branch", "function"])
def test_nan_wherever_it_is(inside: str, look: Look, refused: Refused) -> None:
    tensor = numpy_helper.from_array(np.full((3, 4), np.nan, np.float32), "far")
    with refused("holds NaN"):
        look(hidden(tensor, inside))


def test_nan_as_a_plain_number(look: Look, refused: Refused) -> None:
    with refused("holds NaN"):
        look(model_of([helper.make_node("Constant", [], ["c"], value_floats=[1.0, math.nan]), HEAD]))


def test_a_mask_of_minus_infinity_is_no_broken_weight(look: Look) -> None:
    mask = numpy_helper.from_array(np.array([[0, -np.inf]], np.float32), "mask")
    assert look(model_of([HEAD], [mask]))["spec"]["classes"] == 4


def _loop() -> list[NodeProto]:
    body = helper.make_graph(
        [_id("go", "again"), _id("v", "w")],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("go", 9))]
        + [helper.make_tensor_value_info("v", 1, None)],
        [helper.make_tensor_value_info("again", 9, []), helper.make_tensor_value_info("w", 1, None)],
    )
    return [helper.make_node("Loop", ["", "yes", "pooled"], ["looped"], body=body), HEAD]


YES = helper.make_tensor("yes", TensorProto.BOOL, [], [True])


def test_a_loop_without_end(look: Look, refused: Refused) -> None:
    with refused("contains a Loop, which can run without end"):
        look(model_of(_loop(), [YES]))


def test_a_loop_inside_a_branch(look: Look, refused: Refused) -> None:
    branch = helper.make_graph(_loop()[:1], "b", [], [helper.make_tensor_value_info("looped", 1, None)])
    node = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    with refused("contains a Loop"):
        look(model_of([node, HEAD], [YES]))


def test_a_loop_inside_a_function_inside_a_function(look: Look, refused: Refused) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("custom", 1)]
    constant = helper.make_node("Constant", [], ["yes"], value=YES)
    inner = helper.make_function("custom", "In", ["pooled"], ["looped"], [constant, _loop()[0]], opsets)
    outer = helper.make_function("custom", "Out", ["a"], ["b"], [_call("In", "a", "b")], opsets)
    with refused("contains a Loop"):
        look(model_of([_call("Out", "pooled", "c"), HEAD], functions=[inner, outer]))


def _call(name: str, source: str, target: str) -> NodeProto:
    return helper.make_node(name, [source], [target], domain="custom")


def test_functions_that_call_themselves(look: Look, refused: Refused) -> None:
    opsets = [helper.make_opsetid("custom", 1)]
    one = helper.make_function("custom", "One", ["a"], ["b"], [_call("Two", "a", "b")], opsets)
    two = helper.make_function("custom", "Two", ["a"], ["b"], [_call("One", "a", "b")], opsets)
    with refused("never end: '(One|Two)' calls itself"):
        look(model_of([_call("One", "pooled", "c"), HEAD], functions=[one, two]))


def test_functions_that_double_forty_times(look: Look, refused: Refused) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("custom", 1)]
    functions = [helper.make_function("custom", "F0", ["a"], ["b"], [_id("a", "b")], opsets)]
    for index in range(40):
        calls = [_call(f"F{index}", "a", "m"), _call(f"F{index}", "m", "b")]
        functions.append(helper.make_function("custom", f"F{index + 1}", ["a"], ["b"], calls, opsets))
    with refused(r"become 1,099,511,627,\d+ operators"):
        look(model_of([_call("F40", "pooled", "c"), HEAD], functions=functions))


def test_harmless_functions_are_written_out(take: Callable[..., Candidate]) -> None:
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function(
        "custom", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets
    )
    head = helper.make_node("MatMul", ["c", "weight"], ["y"])
    candidate = take(model_of([_call("F", "pooled", "c"), head], functions=[function]))
    assert candidate.onnx
    assert not onnx.load(str(candidate.onnx)).functions


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("Evil", "custom"),
        ("Evil", "pkg.evil"),
        ("EPContext", "com.microsoft"),
        ("BeamSearch", "com.microsoft"),
    ],
)
def test_operators_of_other_sets(operator: str, domain: str, look: Look, refused: Refused) -> None:
    node = helper.make_node(operator, ["pooled"], ["out"], domain=domain)
    with refused(f"uses '{operator}' of the operator set '{domain}'"):
        look(model_of([node, HEAD]))


def test_sparse_tensors(look: Look, refused: Refused) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [2**20, 2**20])
    model = model_of([HEAD])
    model.graph.sparse_initializer.append(sparse)
    with refused("is a sparse tensor"):
        look(model)
    with refused("is a sparse tensor"):
        look(model_of([helper.make_node("Constant", [], ["c"], sparse_value=sparse), HEAD]))


def test_training_info(look: Look, refused: Refused) -> None:
    model = model_of([HEAD])
    model.training_info.add().algorithm.CopyFrom(GraphProto(name="train"))
    with refused("holds a training program"):
        look(model)


@pytest.mark.parametrize(
    ("taken", "given", "what"),
    [
        (PICTURES, ("N", 1), "not logits"),
        (PICTURES, ("N", "K"), "not logits"),
        (PICTURES, ("N", 4, 1), "not logits"),
        (PICTURES, ("N", -4), "not logits"),
        (PICTURES, ("N", 5), "returns torch.float32|does not run"),
        (("N", 3, "H", "W"), ("N", 4), "H and W fixed"),
        (("N", 3, -8, -8), ("N", 4), "H and W fixed"),
        (("N", 3, 8, 5000), ("N", 4), "H and W fixed"),
        (("N", 2, 8, 8), ("N", 4), "C must be 1 or 3"),
        (("N", 3), ("N", 4), "not FLOAT"),
    ],
)
def test_inputs_and_outputs(
    taken: Sequence[int | str], given: Sequence[int | str], what: str, look: Look, refused: Refused
) -> None:
    with refused(what):
        look(model_of([HEAD], taken=taken, given=given))


def test_an_input_of_another_type(look: Look, refused: Refused) -> None:
    model = model_of([HEAD])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with refused("takes INT64"):
        look(model)


def test_two_inputs(look: Look, refused: Refused) -> None:
    model = model_of([HEAD])
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    with refused("has 2 inputs"):
        look(model)


def test_a_batch_that_is_fixed_inside(take: Look, refused: Refused) -> None:
    shape = numpy_helper.from_array(np.array([1, 4], np.int64), "shape")
    nodes = [
        helper.make_node("MatMul", ["pooled", "weight"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["y"]),
    ]
    with refused("does not run in ONNX Runtime on batches of 1 and 3"):
        take(model_of(nodes, [shape], taken=(1, 3, 8, 8), given=(1, 4)))


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand"])
def test_a_tensor_that_is_huge_only_at_run_time(operator: str, take: Look, refused: Refused) -> None:
    """A terabyte that no shape in the file shows."""
    shape = numpy_helper.from_array(np.array([2**19, 2**19], np.int64), "shape")
    one = numpy_helper.from_array(np.ones((1,), np.float32), "one")
    inputs = ["shape"] if operator == "ConstantOfShape" else ["one", "shape"]
    nodes = [
        helper.make_node(operator, inputs, ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["largest"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "weight"], ["m"]),
        helper.make_node("Add", ["m", "largest"], ["y"]),
    ]
    with refused("does not run in ONNX Runtime|ended its own check early"):
        take(model_of(nodes, [shape, one]))


def test_hours_of_arithmetic_end_in_time(take: Callable[..., Candidate], refused: Refused) -> None:
    """No loop and no large tensor, but hundreds of products of large matrices."""
    weight = numpy_helper.from_array(np.full((4096, 4096), 1e-4, np.float32), "big")
    many = numpy_helper.from_array(np.array([4096, 4096], np.int64), "many")
    nodes = [
        helper.make_node("ReduceMean", ["pooled"], ["first"], keepdims=1),
        helper.make_node("Expand", ["first", "many"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{index}", "big"], [f"m{index + 1}"]) for index in range(400)),
        helper.make_node("ReduceMax", ["m400"], ["largest"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "weight"], ["m"]),
        helper.make_node("Add", ["m", "largest"], ["y"]),
    ]
    with refused("was not checked within 6 s"):
        take(model_of(nodes, [weight, many]), seconds=30)


def test_logits_that_are_not_finite(take: Look, refused: Refused) -> None:
    nodes = [
        helper.make_node("MatMul", ["pooled", "weight"], ["m"]),
        helper.make_node("Div", ["m", "zero"], ["y"]),
    ]
    with refused("returns NaN or infinite logits"):
        take(model_of(nodes, [numpy_helper.from_array(np.zeros((), np.float32), "zero")]))


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.97])
def test_cut_off(keep: float, tmp_path: Path, refused: Refused, request_for: Callable[..., Any]) -> None:
    path = tmp_path / "m.onnx"
    data = model_of([HEAD]).SerializeToString()
    path.write_bytes(data[: int(len(data) * keep)])
    request = request_for(path)
    with refused("is empty|not a whole ONNX file|breaks the ONNX rules|holds no operators|inputs|holds less"):
        inspect(request, lambda _: None)


@pytest.mark.parametrize("content", [b"\x08", b"\x08\x07", b"garbage" * 100, b"\xff" * 64, bytes(64)])
def test_garbage(content: bytes, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with refused("not a whole ONNX file|holds no operators"):
        read_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".json", ".onnxtxt", ".textproto"])
def test_the_suffix_does_not_choose_the_parser(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(model_of([HEAD]).SerializeToString())
    assert read_onnx(path)[1] == 4


def test_a_zip_named_onnx(tmp_path: Path, refused: Refused, request_for: Callable[..., Any]) -> None:
    path = tmp_path / "m.onnx"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", b"b")
    request = request_for(path)
    with refused("is a zip, but not a model"):
        inspect(request, lambda _: None)
