import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.support.arrays import candidate, easy_data, small_net
from workers.base import Candidate
from workers.deploy.export import export_onnx
from workers.deploy.parity import TOLERANCE, Parity, check_parity, compare
from workers.errors import GateFailed
from workers.runtimes.onnxruntime import OnnxRuntime

LOGITS = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    export_onnx(candidate(small_net()), tmp_path / "model.onnx", ("a", "b", "c"))
    return tmp_path / "model.onnx"


def gate(file: Path, model: Candidate | None = None) -> Parity | None:
    batches = [easy_data().splits["validation"][0][start : start + 20] for start in (0, 20, 40)]
    return check_parity(model or candidate(small_net()), file, batches, OnnxRuntime())


def change(file: Path, by: float) -> None:
    """Add to one weight of the classifier."""
    model = onnx.load(file)
    last = next(t for t in model.graph.initializer if list(t.dims) in ([3, 128], [128, 3]))
    weight = numpy_helper.to_array(last).copy()
    weight[1, 1] += by
    last.CopyFrom(numpy_helper.from_array(weight, last.name))
    onnx.save(model, file)


def test_the_exported_file_passes_with_its_numbers(file: Path) -> None:
    parity = gate(file)
    assert parity is not None
    assert parity.samples == 48
    assert parity.logit_error < 1e-5
    assert parity.same_answer == 1


@pytest.mark.parametrize("by", [1.0, float("nan"), float("inf")])
def test_one_changed_weight_fails(file: Path, by: float) -> None:
    change(file, by)
    with pytest.raises(GateFailed, match=r"model\.onnx: differs.* 48 samples"):
        gate(file)


def test_a_change_that_turns_no_answer_fails_too(file: Path) -> None:
    change(file, 0.005)
    with pytest.raises(GateFailed, match=r"logits by \d\.\d+%, 0\.00% of the answers"):
        gate(file)


def test_swapped_classes_fail(file: Path) -> None:
    graph = small_net()
    with torch.no_grad():
        graph.get_submodule("8").weight.copy_(graph.get_submodule("8").weight[[1, 0, 2]])  # type: ignore[operator,index]
    with pytest.raises(GateFailed):
        gate(file, candidate(graph))


def test_a_graph_in_training_mode_is_compared_in_evaluation_mode(file: Path) -> None:
    assert gate(file, candidate(copy.deepcopy(small_net()).train())) is not None


def test_an_upload_that_never_was_a_graph_has_nothing_to_equal(file: Path) -> None:
    assert gate(file, candidate(None)) is None


def test_equal_logits() -> None:
    assert compare(LOGITS, LOGITS) == Parity(samples=100, logit_error=0, same_answer=1)


def test_the_error_is_relative_to_the_largest_logit() -> None:
    got = LOGITS.copy()
    got[3, 2] += 0.01
    expected = 0.01 / np.abs(LOGITS).max()
    assert compare(LOGITS, got).logit_error == pytest.approx(expected, rel=1e-3)
    assert compare(1000 * LOGITS, 1000 * got).logit_error == pytest.approx(expected, rel=1e-3)


def test_one_other_answer_is_one_hundredth() -> None:
    got = LOGITS.copy()
    got[7] = got[7][::-1]
    assert compare(LOGITS, got).same_answer == pytest.approx(0.99)


def test_a_tie_may_fall_either_way_and_a_near_miss_may_not() -> None:
    expected = np.array([[2.0, 2.0 - TOLERANCE, 0.0]])
    got = np.array([[2.0 - TOLERANCE, 2.0, 0.0]])
    assert compare(expected, got).same_answer == 1
    expected, got = np.array([[2.0, 1.98, 0.0]]), np.array([[1.98, 2.0, 0.0]])
    assert compare(expected, got).same_answer == 0


@pytest.mark.parametrize(
    "got", [np.full_like(LOGITS, np.nan), np.full_like(LOGITS, np.inf), LOGITS[:, :1], LOGITS[:50]]
)
def test_no_numbers_and_other_shapes_equal_nothing(got: np.ndarray) -> None:
    for parity in (compare(LOGITS, got), compare(got, LOGITS)):
        assert parity.logit_error == np.inf
        assert parity.same_answer == 0


def test_logits_of_zero_do_not_divide_by_zero() -> None:
    zeros = np.zeros((3, 2), np.float32)
    assert compare(zeros, zeros).logit_error == 0
