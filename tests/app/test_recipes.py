"""Presets are recipes that can be carried out; amounts and chips tell what a recipe does."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from app.recipes import PRESETS, chips, has_amount, presets, refusal, with_amount
from tests.support.arrays import candidate, context, small_net
from workers import turns
from workers.quantization.trials import Trials
from workers.recipe import Recipe


def test_every_preset_can_be_carried_out_and_says_what_it_does() -> None:
    found = presets()
    assert list(found) == ["Balanced", "Safe", "Smallest", "Distil to a small student"]
    for name, preset in found.items():
        assert preset.recipe["name"] == name
        assert preset.recipe["steps"]
        assert refusal(preset.recipe) is None
        assert preset.about.endswith(".")


def test_a_preset_leaves_settings_at_their_defaults() -> None:
    assert "weight_decay" not in PRESETS.read_text()
    assert presets()["Balanced"].recipe["steps"][1]["weight_decay"] == 5e-4


def test_another_amount_changes_the_first_step_that_has_one_and_the_name() -> None:
    steps: list[dict[str, Any]] = [{"method": "a", "amount": None}, {"method": "b", "amount": 0.1}]
    changed = with_amount({"name": "R", "steps": steps}, 0.7)
    assert [step["amount"] for step in changed["steps"]] == [None, 0.7]
    assert changed["name"] == "R · 70 %"
    assert steps[1]["amount"] == 0.1


def test_an_amount_of_nothing_is_no_amount() -> None:
    """It prunes single layers alone: with another one the whole net would be pruned, too."""
    single = {"method": "structured_pruning", "amount": 0.0, "layer_amounts": {"conv1": 0.5}}
    assert not has_amount({"steps": [single]})
    other = {"method": "low_rank", "amount": 0.1}
    changed = with_amount({"name": "R", "steps": [single, other]}, 0.7)
    assert [step["amount"] for step in changed["steps"]] == [0.0, 0.7]


def test_a_pattern_leaves_the_amount_unused() -> None:
    pattern = {"method": "unstructured_pruning", "amount": 0.5, "pattern": "2:4"}
    free = {"method": "unstructured_pruning", "amount": 0.5, "pattern": "none"}
    assert not has_amount({"steps": [pattern]})
    changed = with_amount({"name": "R", "steps": [pattern, free]}, 0.7)
    assert [step["amount"] for step in changed["steps"]] == [0.5, 0.7]
    assert chips({"steps": [pattern, free]}) == ["Unstructured pruning 2:4", "Unstructured pruning 50 %"]


def test_chips_name_methods_that_are_not_there_any_more() -> None:
    steps = [{"method": "structured_pruning", "amount": 0.5}, {"method": "gone", "amount": None}]
    assert chips({"steps": steps}) == ["Structured pruning 50 %", "gone"]


def test_smallest_keeps_its_int8_file_though_float_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))
    monkeypatch.setattr(Trials, "_ratios", lambda _, files: [1.25] * len(files))
    steps = Recipe.model_validate(presets()["Smallest"].recipe).steps
    quick = {"mode": "static", "engine": "onnxruntime", "max_drop": 100}  # qat hands out the same way
    found = steps[-1].model_copy(update=quick).apply(candidate(small_net()), context(tmp_path))
    assert found.graph is None
    assert found.onnx is not None
    assert any(tensor.data_type == TensorProto.INT8 for tensor in onnx.load(found.onnx).graph.initializer)
