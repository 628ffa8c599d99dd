"""The front against brute force, the goal, the thinning, the families."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charts.variants import (
    Goal,
    best_within,
    family_of,
    on_front,
    staircase,
    thinned,
    variants_frame,
    within_goal,
)

coordinate = st.integers(1, 6).map(float)
TARGET = '{"runtime": "onnxruntime"}'


def frame(*points: tuple[float, float], noise: float = 0.0) -> pd.DataFrame:
    """(ratio, accuracy); the first one is the baseline. noise: half the width of every interval."""
    rows = pd.DataFrame(points, columns=["ratio", "accuracy"])
    for name in ("ratio", "accuracy"):
        rows[f"{name}_low"], rows[f"{name}_high"] = rows[name] - noise, rows[name] + noise
    names = [f"v{i}" for i in range(len(rows))]
    return rows.assign(baseline=rows.index == 0, variant=names, last=True)


points_of = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=30)


@given(points_of)
def test_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    def dominated(x: float, y: float) -> bool:
        return any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)

    assert on_front(frame(*points), "ratio").tolist() == [not dominated(x, y) for x, y in points]


@given(points_of, st.sampled_from([0.3, 1.0, 1.5, 2.4]))
def test_nothing_dominates_by_less_than_its_interval(points: list[tuple[float, float]], noise: float) -> None:
    def dominated(x: float, y: float) -> bool:
        return any(b >= y and a - noise <= x and (b - noise > y or a + noise < x) for a, b in points)

    front = on_front(frame(*points, noise=noise), "ratio").tolist()
    assert front == [not dominated(x, y) for x, y in points]
    assert any(front)


def test_a_thousandth_faster_is_no_reason_to_be_on_the_front() -> None:
    collapsed, tuned = (0.226, 0.138), (0.227, 0.938)
    points = frame((1.0, 0.964), collapsed, tuned, noise=0.002)
    assert on_front(points, "ratio").tolist() == [True, False, True]


def test_stages_on_the_way_are_neither_on_the_front_nor_best() -> None:
    points = frame((1.0, 0.95), (0.5, 0.949), (0.6, 0.945)).assign(last=[True, False, True])
    assert on_front(points, "ratio").tolist() == [True, False, True]
    best = best_within(points, Goal(1.0, 0.6))
    assert best is not None
    assert best["variant"] == "v2"


@given(points_of, st.sampled_from([0.0, 1.0]))
def test_the_line_rises_through_points_of_the_front(points: list[tuple[float, float]], noise: float) -> None:
    rows = frame(*points, noise=noise)
    line = staircase(rows[on_front(rows, "ratio")], "ratio")
    assert line["ratio"].is_monotonic_increasing
    assert (np.diff(line["accuracy"]) > 0).all()
    assert line["accuracy"].max() == rows["accuracy"].max()


def test_goal_holds_at_its_edges() -> None:
    points = frame((1.0, 0.95), (0.6, 0.94), (0.601, 0.94), (0.5, 0.939))
    assert within_goal(points, Goal(1.0, 0.6)).tolist() == [False, True, False, False]


def test_nothing_is_within_a_goal_without_a_baseline() -> None:
    points = frame((0.5, 0.9)).assign(baseline=False)
    assert not within_goal(points, Goal(10, 1)).any()


def test_best_is_the_fastest_that_meets_the_goal() -> None:
    points = frame((1.0, 0.95), (0.5, 0.945), (0.5, 0.947), (0.2, 0.80))
    best = best_within(points, Goal(1.0, 0.6))
    assert best is not None
    assert best["variant"] == "v2"
    assert best_within(points, Goal(0.0, 0.1)) is None


def test_of_equally_fast_ones_the_most_accurate_is_best() -> None:
    points = frame((1.0, 0.95), (0.500, 0.941), (0.501, 0.949), (0.52, 0.95), noise=0.002)
    best = best_within(points, Goal(1.0, 0.6))
    assert best is not None
    assert best["variant"] == "v2"


def test_thinning_keeps_the_front_and_the_limit() -> None:
    random = np.random.default_rng(0)
    points = frame(*map(tuple, random.uniform(0.1, 1, (5000, 2)).tolist()))
    front = on_front(points, "ratio")
    fewer = thinned(points, front, limit=1000)
    assert len(fewer) == 1000
    assert set(points.index[front]) <= set(fewer.index)


@pytest.mark.parametrize(
    ("methods", "family"),
    [
        (["structured_pruning", "fine_tuning"], "Pruning"),
        (["fine_tuning"], "Fine-tuning"),
        (["structured_pruning", "fine_tuning", "static"], "Pruning + quantization"),
    ],
)
def test_family(methods: list[str], family: str) -> None:
    families = {"structured_pruning": "pruning", "static": "quantization"}
    assert family_of(methods, families) == family


def test_uploaded_model_is_one_row_however_many_runs_measured_it() -> None:
    rows = [
        {"run": run, "index": index, "name": run, "target": TARGET, "variant": f"{run}{index}", "moved": None}
        for run, index in (("a", 0), ("b", 0), ("b", 1), ("b", 2))
    ]
    made = variants_frame(rows, [("b", 1, "structured_pruning"), ("b", 2, "fine_tuning")], {})
    assert made["label"].tolist() == ["Baseline", "b · stage 1", "b"]
    assert made["last"].tolist() == [True, False, True]
