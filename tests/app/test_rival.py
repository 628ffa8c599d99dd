"""Which static network stands against exits, who wins, and what to ask pruning for next."""

import pytest

from app.rival import Contest, Rival, alike, amount_for, deciding, static_recipe, verdict

EXITS = {
    "method": "early_exit", "training": "heads", "head_epochs": 3, "epochs": 9, "learning_rate": 0.003,
    "optimizer": "adamw",
}  # fmt: skip


def contest(
    *found: tuple[float, float], asked: dict[int, float] | None = None, before: float = 1.0
) -> Contest:
    """found: (accuracy, ratio) of one run each. asked: by such a run, the amount that it was made with."""
    amounts = asked or {}
    recipes = [
        static_recipe([EXITS], amounts[run], 1.0)
        if run in amounts
        else {"steps": [{"method": "fine_tuning"}]}
        for run in range(len(found))
    ]
    rivals = [
        Rival(f"v{run}", str(run), stage, f"run {run}", *pair)
        for run, pair in enumerate(found)
        for stage in range(1, len(recipes[run]["steps"]) + 1)
    ]
    return Contest([EXITS], before, rivals, [(str(run), "r", "done", one) for run, one in enumerate(recipes)])


def test_the_most_accurate_of_the_same_latency_decides() -> None:
    best = deciding(contest((0.9, 0.5), (0.93, 0.52), (0.99, 0.6)), 0.5, 0.95)
    assert best is not None
    assert best.name == "run 1"
    assert "the static network wins by 1.0 points" in verdict(best, 0.5, 0.92, 0.1, None)
    assert "neither wins" in verdict(best, 0.5, 0.93, 0.1, None)


def test_another_latency_decides_only_where_one_is_worse_in_both() -> None:
    assert deciding(contest((0.99, 0.6), (0.9, 0.4)), 0.5, 0.95) is None
    faster = deciding(contest((0.96, 0.4)), 0.5, 0.95)
    assert faster is not None
    assert "the static network wins by 1.0 points" in verdict(faster, 0.5, 0.95, 0.1, 0.01)
    # Slower and worse, but made for something else: a better one of that latency may exist.
    assert deciding(contest((0.9, 0.6)), 0.5, 0.95) is None
    tried = deciding(contest((0.9, 0.6), asked={0: 0.5}), 0.5, 0.95)
    assert tried is not None
    assert not alike(tried, 0.5)
    assert "takes 0.12" in verdict(tried, 0.5, 0.95, 0.1, 0.01)
    assert "exits win by 5.0 points" in verdict(tried, 0.5, 0.95, 0.1, 0.01)
    assert "exits win, as accurate as far as" in verdict(tried, 0.5, 0.95, 0.1, 0.2)


def test_the_next_amount_lies_between_what_was_tried() -> None:
    assert amount_for(contest(), 0.4) == pytest.approx(0.6)
    assert amount_for(contest(before=0.8), 0.4) == pytest.approx(0.5)
    assert amount_for(contest(before=0.3), 0.4) is None  # no faster than without exits
    # 0.5 removed half: 0.6 lies at (0.6 - 0.5) / (1 - 0.5) of the way from there to everything.
    assert amount_for(contest((0.9, 0.5), asked={0: 0.5}), 0.4) == pytest.approx(0.5 + 0.2 * 0.5)
    # 0.6 removed 0.8: 0.6 lies at three quarters of the way from nothing.
    assert amount_for(contest((0.9, 0.2), asked={0: 0.6}), 0.4) == pytest.approx(0.45)
    # 0.5 and 0.6 removed 0.8 and 0.85: 0.7 lies two such steps before, and not at 0.7 / 0.8 of the first.
    found = contest((0.9, 0.15), (0.9, 0.2), asked={0: 0.6, 1: 0.5})
    assert amount_for(found, 0.3) == pytest.approx(0.5 - 2 * 0.1)
    assert amount_for(found, 0.6) == pytest.approx(0.5 / 4)  # so far the line does not reach
    # 0.6 removed only half: there was no more.
    assert amount_for(contest((0.9, 0.5), asked={0: 0.6}), 0.4) is None
    assert amount_for(contest((0.9, 0.5), asked={0: 0.6}), 0.55) is not None


def test_a_static_recipe_trains_as_the_exits_did() -> None:
    recipe = static_recipe([{"method": "fine_tuning"}, EXITS, {"method": "quantization"}], 0.4, 1)
    assert [step["method"] for step in recipe["steps"]] == [
        "fine_tuning", "structured_pruning", "distillation", "quantization"
    ]  # fmt: skip
    lesson = recipe["steps"][2]
    assert (lesson["epochs"], lesson["learning_rate"], lesson["optimizer"]) == (3, 0.003, "adamw")
