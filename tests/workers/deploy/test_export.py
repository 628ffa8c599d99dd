import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.support.arrays import candidate, small_net
from workers.base import Candidate, ExitPlan
from workers.deploy import export
from workers.deploy.export import export_onnx, export_segments
from workers.errors import StepFailed
from workers.exits.heads import make_head
from workers.exits.staging import add_exits, staged_logits

CLASSES = ("cat", "dog", "süß")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(candidate(small_net()), path, CLASSES)
    return path


@pytest.fixture
def uploaded(tmp_path: Path) -> Candidate:
    """An ONNX file that tells who made it, in every place that the format has for that."""
    secret = "/home/someone/net.py"
    inner = helper.make_graph(
        [helper.make_node("Identity", ["flat"], ["same"], doc_string=secret)],
        "branch",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
        doc_string=secret,
    )
    weight = numpy_helper.from_array(np.ones((64, 3), np.float32), "weight")
    weight.doc_string = secret
    yes = numpy_helper.from_array(np.array(True), "yes")
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], doc_string=secret),
        helper.make_node("If", ["yes"], ["kept"], then_branch=inner, else_branch=inner),
        helper.make_node("MatMul", ["kept", "weight"], ["product"]),
        helper.make_node("Twin", ["product"], ["logits"], domain="pkg.own"),
    ]
    taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8], doc_string=secret)
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3], doc_string=secret)
    graph = helper.make_graph(nodes, secret, [taken], [given], [weight, yes], doc_string=secret)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pkg.own", 1)]
    twin = helper.make_function(
        "pkg.own",
        "Twin",
        ["x"],
        ["y"],
        [helper.make_node("Identity", ["x"], ["y"], doc_string=secret)],
        opsets,
    )
    twin.doc_string = secret
    model = helper.make_model(graph, opset_imports=opsets, functions=[twin], doc_string=secret, ir_version=10)
    helper.set_model_props(model, {"author": secret})
    for part in (model.graph, model.graph.node[0], model.graph.initializer[0], twin.node[0]):
        part.metadata_props.add(key="trace", value=secret)
    onnx.save(model, tmp_path / "upload.onnx")
    return Candidate(candidate(None).spec, onnx=tmp_path / "upload.onnx")


def test_one_input_one_output_and_a_dynamic_batch(exported: Path) -> None:
    session = ort.InferenceSession(exported)
    ((taken,), (given,)) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("input", "tensor(float)", ["N", 1, 8, 8])
    assert (given.name, given.type, given.shape) == ("logits", "tensor(float)", ["N", 3])
    onnx.checker.check_model(onnx.load(exported), full_check=True)


@pytest.mark.parametrize("samples", [1, 3, 7])
def test_gives_the_logits_of_the_graph(exported: Path, samples: int) -> None:
    inputs = torch.randn(samples, 1, 8, 8, generator=torch.Generator().manual_seed(samples))
    (logits,) = ort.InferenceSession(exported).run(["logits"], {"input": inputs.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, small_net()(inputs), rtol=1e-4, atol=1e-5)


def test_says_how_to_preprocess_and_what_the_classes_are(exported: Path) -> None:
    said = ort.InferenceSession(exported).get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == list(CLASSES)
    assert json.loads(said["preprocessing"]) == candidate(None).spec.preprocessing.model_dump(mode="json")


def test_carries_nothing_of_the_exporter(exported: Path) -> None:
    content = exported.read_bytes()
    here = Path(__file__).parents[3]
    for trace in (str(here), str(Path.home()), "site-packages", 'File "', ".py", "Sequential", "GraphModule"):
        assert trace.encode() not in content, trace
    model = onnx.load(exported)
    assert {prop.key for prop in model.metadata_props} == {"preprocessing", "classes"}
    parts: list[Any] = [model, model.graph, *model.graph.node, *model.graph.initializer]
    assert not any(part.doc_string for part in parts)
    assert not any(node.metadata_props for node in model.graph.node)


def test_an_uploaded_file_keeps_its_graph_and_loses_its_maker(uploaded: Candidate, tmp_path: Path) -> None:
    assert uploaded.onnx is not None
    before = uploaded.onnx.read_bytes()
    export_onnx(uploaded, tmp_path / "model.onnx", CLASSES)
    assert b"someone" not in (tmp_path / "model.onnx").read_bytes()
    inputs = {"input": np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)}
    logits = [
        ort.InferenceSession(file).run(None, inputs)[0] for file in (uploaded.onnx, tmp_path / "model.onnx")
    ]
    np.testing.assert_array_equal(*logits)
    assert uploaded.onnx.read_bytes() == before


def test_a_failed_write_leaves_nothing_and_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"old")

    def fail(_: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(OSError, match="No space"):
        export_onnx(candidate(small_net()), tmp_path / "model.onnx", CLASSES)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.onnx", b"old")]


def test_a_model_over_the_limit_of_the_format_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MAX_BYTES", 100)
    with pytest.raises(StepFailed, match="at most 100"):
        export_onnx(candidate(small_net()), tmp_path / "model.onnx", CLASSES)
    assert not list(tmp_path.iterdir())


def test_segments_of_a_model_with_exits(tmp_path: Path) -> None:
    """One after the other they give the logits of every exit; the file beside them those of the end."""
    heads = {
        "_2": make_head(torch.Size((8, 8, 8)), "channels_first", 3, "conv", 0),
        "_4": make_head(torch.Size((8, 4, 4)), "channels_first", 3, "linear", 1),
    }
    graph = add_exits(small_net(), heads)
    model = Candidate(candidate(None).spec, graph, exits=ExitPlan(cuts=tuple(heads)))
    files = export_segments(model, tmp_path / "model.onnx")
    assert [file.name for file in files] == [f"model.segment{number}.onnx" for number in (1, 2, 3)]
    first, second, last = (ort.InferenceSession(file) for file in files)
    inputs = torch.randn(5, 1, 8, 8)
    one, hidden = first.run(["logits", "handed_on"], {"input": inputs.numpy()})
    two, hidden = second.run(["logits", "handed_on"], {"hidden": hidden})
    (end,) = last.run(None, {"hidden": hidden})
    expected = staged_logits(graph, inputs).numpy()
    np.testing.assert_allclose(np.stack([one, two, end]), expected, rtol=1e-4, atol=1e-5)
    assert [value.name for value in last.get_outputs()] == ["logits"]
    assert [len(rows) for rows in first.run(None, {"input": inputs[:1].numpy()})] == [1, 1]
    weights = [{w.name for w in onnx.load(file).graph.initializer if w.dims} for file in files]
    assert all(mine.isdisjoint(others) for mine, others in itertools.combinations(weights, 2))


def test_the_graph_can_still_be_trained(tmp_path: Path) -> None:
    model = candidate(small_net())
    export_onnx(model, tmp_path / "model.onnx", CLASSES)
    assert model.graph is not None
    model.graph.train()(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.graph.parameters())
