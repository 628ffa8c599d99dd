"""The one file with plain onnxruntime, against the segments it was made from."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.numpy_helper import from_array

from tests.support.staged import CLASSES, PLAN, SPEC, parts, plan, samples
from workers.base import ExitPlan
from workers.catalog import RUNTIMES
from workers.deploy.exit_parity import check_exits
from workers.deploy.one_file import compose_one_file, set_thresholds
from workers.errors import GateFailed, ModelRefused, StepFailed
from workers.exits.executor import all_logits, onnx_segments, torch_segments
from workers.exits.scores import Score, leaving, leaving_together, planned_scores

INPUTS = samples(60)
SCORES: tuple[Score, ...] = ("probability", "entropy", "margin", "patience")


@pytest.fixture(params=["float32", "int8"])
def files(request: pytest.FixtureRequest, segment_files: list[Path]) -> list[Path]:
    if request.param == "float32":
        return segment_files
    int8: list[Path] = request.getfixturevalue("int8_files")
    return int8


@pytest.fixture
def file(segment_files: list[Path], tmp_path: Path) -> Path:
    compose_one_file(segment_files, PLAN, tmp_path / "model.onnx", SPEC, CLASSES)
    return tmp_path / "model.onnx"


def run(file: Path, inputs: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    session = ort.InferenceSession(file)
    found = [
        session.run(["logits", "exit"], {"input": inputs[start : start + batch]})
        for start in range(0, len(inputs), batch)
    ]
    logits, taken = (np.concatenate(part) for part in zip(*found, strict=True))
    return logits, taken


@pytest.mark.parametrize("score", SCORES)
def test_the_same_exits_and_logits_as_the_segments(files: list[Path], tmp_path: Path, score: Score) -> None:
    """At batch 1 each sample for itself; at 8, and in a shorter last batch, when all rows are sure."""
    compose_one_file(files, plan(score), tmp_path / "model.onnx", SPEC, CLASSES)
    expected = all_logits(onnx_segments(files, threads=1), [INPUTS])
    scores, thresholds = planned_scores(plan(score), expected), plan(score).thresholds or ()
    for batch, exits in ((1, leaving(scores, thresholds)), (8, leaving_together(scores, thresholds, 8))):
        logits, taken = run(tmp_path / "model.onnx", INPUTS, batch)
        assert taken.dtype == np.int64
        np.testing.assert_array_equal(taken, exits)
        np.testing.assert_allclose(logits, expected[np.arange(60), exits - 1], rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


def test_the_gate_passes_the_pytorch_model_it_came_from(file: Path) -> None:
    logits = all_logits(torch_segments(parts()), [INPUTS])
    parity = check_exits(file, [(INPUTS, logits)], PLAN)
    assert (parity.samples, parity.same_exit, parity.same_exit_together) == (60, 1, 1)
    assert parity.logit_error < 1e-5


def test_the_gate_stops_other_exits_of_single_samples(file: Path) -> None:
    """One sample in each batch is never sure, so that in batches nothing differs."""
    scores = planned_scores(PLAN, all_logits(torch_segments(parts()), [INPUTS]))
    unsure = INPUTS[scores.max(axis=1).argmin()]
    inputs = INPUTS[:56].copy()
    inputs[::8] = unsure
    logits = all_logits(torch_segments(parts()), [inputs])
    check_exits(file, [(inputs, logits)], PLAN)
    set_thresholds(file, (0.8, 0.6))
    with pytest.raises(GateFailed, match=r"on 56 samples: \d+\.\d+% take .* 0\.00% in batches of 8"):
        check_exits(file, [(inputs, logits)], PLAN)


def test_the_gate_passes_nothing_that_it_could_not_compare(file: Path) -> None:
    with pytest.raises(GateFailed, match="no sample to compare it on"):
        check_exits(file, [], PLAN)
    logits = all_logits(torch_segments(parts()), [INPUTS])
    set_thresholds(file, (0.0, 0.0))
    with pytest.raises(GateFailed, match="take another exit one at a time"):
        check_exits(file, [(INPUTS, logits)], PLAN.model_copy(update={"thresholds": (1.0, 1.0)}))


def test_a_tie_is_no_other_exit(file: Path) -> None:
    """A sample that has just the threshold as its score may leave by rounding, and its batch with it."""
    logits = all_logits(torch_segments(parts()), [INPUTS])
    scores = planned_scores(PLAN, logits)[:, 0]
    threshold = float(np.sort(scores)[30])
    plan = PLAN.model_copy(update={"thresholds": (threshold, 0.6)})
    set_thresholds(file, (threshold - 5e-6, 0.6))
    parity = check_exits(file, [(INPUTS, logits)], plan)
    assert (parity.same_exit, parity.same_exit_together) == (1, 1)
    assert parity.logit_error < 1e-5
    set_thresholds(file, (float(np.sort(scores)[20]), 0.6))
    with pytest.raises(GateFailed):
        check_exits(file, [(INPUTS, logits)], plan)


def test_the_gate_stops_batches_that_leave_with_one_sure_row(file: Path) -> None:
    model = onnx.load(file)
    least = next(node for node in model.graph.node if node.op_type == "ReduceMin")
    least.op_type = "ReduceMax"
    onnx.save(model, file)
    with pytest.raises(GateFailed, match=r"0\.00% take another exit one at a time, \d+\.\d+% in batches"):
        check_exits(file, [(INPUTS, all_logits(torch_segments(parts()), [INPUTS]))], PLAN)


def test_the_gate_stops_other_logits(file: Path, segment_files: list[Path], tmp_path: Path) -> None:
    """The same is added to every class at the end: the same exits, the same answers, other logits."""
    model = onnx.load(segment_files[2])
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [3])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.2, bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    compose_one_file([*segment_files[:2], tmp_path / "other.onnx"], PLAN, file, SPEC, CLASSES)
    with pytest.raises(GateFailed, match=r"0\.00% take .* 0\.00% in batches of 8; logits differ by \d+"):
        check_exits(file, [(INPUTS, all_logits(torch_segments(parts()), [INPUTS]))], PLAN)


def test_a_sure_row_takes_no_unsure_row_along(files: list[Path], tmp_path: Path) -> None:
    """Fails when one maximum goes over classes and rows, or the largest row decides."""
    file = tmp_path / "model.onnx"
    compose_one_file(files, PLAN, file, SPEC, CLASSES)
    _, alone = run(file, INPUTS, 1)
    sure, unsure = INPUTS[alone == 1][:7], INPUTS[alone == 3][:1]
    _, together = run(file, np.concatenate([sure, unsure]), 8)
    np.testing.assert_array_equal(together, [3] * 8)
    np.testing.assert_array_equal(run(file, sure, 7)[1], [1] * 7)


def test_thresholds_are_changed_in_three_lines_of_plain_onnx(file: Path) -> None:
    model = onnx.load(file)
    threshold = next(t for t in model.graph.initializer if t.name == "exit_1_threshold")
    threshold.CopyFrom(numpy_helper.from_array(np.array(1, np.float32), threshold.name))
    onnx.save(model, file)
    _, taken = run(file, INPUTS, 1)
    assert set(taken) == {2, 3}


def test_set_thresholds_changes_them_and_nothing_else(file: Path) -> None:
    before = onnx.load(file)
    set_thresholds(file, (0.0, 0.0))
    assert set(run(file, INPUTS, 1)[1]) == {1}
    set_thresholds(file, PLAN.thresholds or ())
    assert onnx.load(file) == before
    with pytest.raises(StepFailed, match="has 2 exits, and 1 thresholds"):
        set_thresholds(file, (0.5,))


def test_the_outside_of_the_file(file: Path) -> None:
    session = ort.InferenceSession(file)
    ((taken,), given) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("input", "tensor(float)", ["N", 1, 8, 8])
    assert [(output.name, output.type, output.shape) for output in given] == [
        ("logits", "tensor(float)", ["N", 3]),
        ("exit", "tensor(int64)", ["N"]),
    ]
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == list(CLASSES)
    assert json.loads(said["preprocessing"]) == SPEC.preprocessing.model_dump(mode="json")
    model = onnx.load(file)
    scalars = {t.name: float(numpy_helper.to_array(t)) for t in model.graph.initializer if not t.dims}
    assert scalars == pytest.approx(
        {
            "exit_1_threshold": 0.7,
            "exit_2_threshold": 0.6,
            "exit_1_temperature": 0.5,
            "exit_2_temperature": 0.8,
        }
    )


def test_carries_nothing_of_the_exporter(file: Path) -> None:
    content = file.read_bytes()
    here = Path(__file__).parents[3]
    for trace in (str(here), str(Path.home()), "site-packages", 'File "', ".py", "Sequential", "GraphModule"):
        assert trace.encode() not in content, trace


def test_weights_lie_inside_the_branches(file: Path) -> None:
    """Outside, the runtime does not prepare them beforehand: as slow as the full model."""
    seen, graphs = list[set[str]](), [onnx.load(file).graph]
    for graph in graphs:
        seen.append({t.name.split("/")[0] for t in graph.initializer if "exit" not in t.name})
        graphs += [
            a.g for n in graph.node if n.op_type == "If" for a in n.attribute if a.name == "else_branch"
        ]
    assert seen == [{"segment_1"}, {"segment_2"}, {"segment_3"}]


def test_later_segments_do_not_run_for_an_early_sample(files: list[Path], tmp_path: Path) -> None:
    """By the runtime's own profile, node by node."""
    file = tmp_path / "model.onnx"
    compose_one_file(files, PLAN, file, SPEC, CLASSES)
    _, alone = run(file, INPUTS, 1)
    for exit_ in (1, 2, 3):
        seen = profiled(file, INPUTS[alone == exit_][:1], tmp_path)
        segments = {name.split("/")[0] for name, _ in seen if name.startswith("segment_")}
        assert segments == {f"segment_{number}" for number in range(1, exit_ + 1)}
        assert sum("Conv" in operator for _, operator in seen) == exit_


def profiled(file: Path, inputs: np.ndarray, folder: Path) -> list[tuple[str, str]]:
    """Names and operators of the nodes that ran."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(file, options)
    session.run(None, {"input": inputs})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [
        (event["name"], event["args"]["op_name"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]


def test_the_runtime_warns_of_nothing(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for score in SCORES:
        compose_one_file(files, plan(score), tmp_path / "model.onnx", SPEC, CLASSES)
        options = ort.SessionOptions()
        options.log_severity_level = 2
        ort.InferenceSession(tmp_path / "model.onnx", options).run(None, {"input": INPUTS[:8]})
    assert capfd.readouterr().err == ""


def test_segments_of_different_opsets_are_refused(segment_files: list[Path], tmp_path: Path) -> None:
    old = onnx.load(segment_files[1])
    old.opset_import[0].version = 18
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(
        StepFailed, match=r"old\.onnx: uses version 18 of the operators 'ai\.onnx'.*version 20"
    ):
        compose_one_file(
            [segment_files[0], tmp_path / "old.onnx", segment_files[2]],
            PLAN,
            tmp_path / "m.onnx",
            SPEC,
            CLASSES,
        )
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("exits", [1, 4])
@pytest.mark.parametrize("score", ["probability", "patience"])
def test_one_exit_and_four_exits(tmp_path: Path, exits: int, score: Score) -> None:
    """Segments by hand: logits = hidden W, hidden' = relu(hidden V)."""
    generator = np.random.default_rng(0)
    files = []
    for number in range(1, exits + 2):
        given, last = "input" if number == 1 else "x", number == exits + 1
        nodes = [helper.make_node("MatMul", [given, "w"], ["logits"])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])]
        weights = [from_array(generator.normal(size=(4, 3)).astype(np.float32), "w")]
        if not last:
            nodes += [helper.make_node("MatMul", [given, "v"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
            outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4]))
            weights.append(from_array(generator.normal(size=(4, 4)).astype(np.float32), "v"))
        taken_in = [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["N", 4])]
        graph = helper.make_graph(nodes, "net", taken_in, outputs, weights)
        files.append(tmp_path / f"{number}.onnx")
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), files[-1]
        )
    thresholds = (0.6,) * exits if score == "probability" else (2.0,) * exits
    many = ExitPlan(cuts=tuple("abcd"[:exits]), score=score, thresholds=thresholds)
    compose_one_file(files, many, tmp_path / "model.onnx", SPEC, CLASSES)
    inputs = generator.normal(size=(200, 4)).astype(np.float32)
    logits, taken = run(tmp_path / "model.onnx", inputs, 1)
    expected = all_logits(onnx_segments(files, threads=1), [inputs])
    np.testing.assert_array_equal(taken, leaving(planned_scores(many, expected), thresholds))
    np.testing.assert_allclose(logits, expected[np.arange(200), taken - 1], rtol=1e-4, atol=1e-5)
    assert len(set(taken)) == (
        1 if score == "patience" and exits == 1 else exits + 1 - 2 * (score == "patience")
    )


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_stop_early_as_they_say(file: Path, name: str) -> None:
    runtime = RUNTIMES[name]
    missing = runtime.missing()
    if missing:
        pytest.skip(f"{name}: {missing}")
    if not runtime.stops_early:
        with pytest.raises(ModelRefused):
            runtime().open(file, threads=1)
        return
    session = runtime().open(file, threads=1)
    expected, taken = run(file, INPUTS, 1)
    found = np.concatenate([session.run(INPUTS[row : row + 1]) for row in range(len(INPUTS))])
    assert len(set(taken)) == 3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
