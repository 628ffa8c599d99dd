"""Presets are recipes that can be carried out; amounts and chips tell what a recipe does."""

from typing import Any

from app.recipes import PRESETS, chips, presets, refusal, with_amount


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


def test_chips_name_methods_that_are_not_there_any_more() -> None:
    steps = [{"method": "structured_pruning", "amount": 0.5}, {"method": "gone", "amount": None}]
    assert chips({"steps": steps}) == ["Structured pruning 50 %", "gone"]
