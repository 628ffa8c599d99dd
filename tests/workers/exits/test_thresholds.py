"""Every combination of thresholds, tried sample by sample, on random data."""

import itertools
from typing import get_args

import numpy as np
import pytest

from workers.errors import StepFailed
from workers.exits import thresholds
from workers.exits.scores import Score, agreement
from workers.exits.thresholds import Answers, Loss, find_frontier, threshold_grid


def answers(exits: int, samples: int = 200, seed: int = 0, kind: Score = "probability") -> Answers:
    """Surer samples are right more often, later exits too; scores come in ties."""
    generator = np.random.default_rng(seed)
    ease = generator.random((samples, 1))
    scores = np.round(np.clip(ease + 0.3 * generator.normal(size=(samples, exits)), 0.01, 1), 2)
    skill = np.linspace(0.6, 0.95, exits + 1)
    correct = generator.random((samples, exits + 1)) < 0.5 * skill + 0.5 * ease
    if kind == "patience":
        scores = agreement(generator.integers(3, size=(samples, exits)))
    return Answers(kind, scores.astype(np.float32), correct, np.cumsum(generator.uniform(1, 2, exits + 1)))


def tried(data: Answers, levels: int, loss: Loss) -> list[tuple[float, float]]:
    """(mean latency, loss) of every combination, in plain Python."""
    outcomes = []
    for chosen in itertools.product(*threshold_grid(data, levels)):
        ms = lost = 0.0
        for scores, correct in zip(data.scores, data.correct, strict=True):
            place = next((m for m, t in enumerate(chosen) if scores[m] > t), len(chosen))
            ms += data.path_ms[place]
            lost += bool(correct[-1] and not correct[place]) if loss == "worse" else not correct[place]
        outcomes.append((ms / len(data.scores), lost / len(data.scores)))
    return outcomes


def front(outcomes: list[tuple[float, float]]) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for ms, lost in sorted(outcomes):
        if not kept or lost < kept[-1][1] - 1e-12:
            kept.append((ms, lost))
    return kept[::-1]


@pytest.mark.parametrize("loss", get_args(Loss))
@pytest.mark.parametrize("kind", ["probability", "patience"])
@pytest.mark.parametrize(("exits", "levels"), [(1, 32), (2, 8), (3, 4)])
def test_the_frontier_is_that_of_brute_force(exits: int, levels: int, kind: Score, loss: Loss) -> None:
    data = answers(exits, 60, kind=kind)
    found = find_frontier(data, loss=loss, levels=levels)
    got = [(point.mean_ms, point.worse if loss == "worse" else 1 - point.accuracy) for point in found.points]
    expected = front(tried(data, levels, loss))
    assert len(got) == len(expected) > (1 if kind == "patience" and exits == 1 else 2)
    np.testing.assert_allclose(got, expected)


def test_the_numbers_of_a_point_are_those_of_its_thresholds() -> None:
    data = answers(2)
    for point in find_frontier(data).points[::5]:
        left = [
            next((m for m, t in enumerate(point.thresholds) if row[m] > t), 2) for row in data.scores.tolist()
        ]
        assert point.share == tuple(left.count(place) / 200 for place in range(3))
        assert point.mean_ms == pytest.approx(np.mean([data.path_ms[place] for place in left]))
        right = [data.correct[row, place] for row, place in enumerate(left)]
        assert point.accuracy == pytest.approx(np.mean(right))
        assert point.worse == pytest.approx(
            np.mean([c[-1] and not r for c, r in zip(data.correct, right, strict=True)])
        )


@pytest.mark.parametrize("seed", range(3))
def test_coordinate_descent_reaches_the_best_of_brute_force(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every price of a millisecond the sum that it lowers is that of the full search."""
    data = answers(3, 100, seed)
    outcomes = np.array(tried(data, 6, "error"))
    monkeypatch.setattr(thresholds, "EXHAUSTIVE_EXITS", 2)
    points = find_frontier(data, levels=6).points
    got = np.array([(point.mean_ms, 1 - point.accuracy) for point in points])
    for price in np.geomspace(1e-3, 10, thresholds.PRICES) / (data.path_ms[-1] - data.path_ms[0]):
        best = (outcomes @ [price, 1]).min()
        assert (got @ [price, 1]).min() == pytest.approx(best, abs=1e-9)
    assert all(any(np.allclose(row, outcome) for outcome in outcomes) for row in got)


def test_four_exits() -> None:
    data = answers(4, 600)
    found = find_frontier(data)
    assert found == find_frontier(data)
    assert len(found.points) > 10
    assert found.solve(max_drop=2).mean_ms < 0.97 * data.path_ms[-1]


def test_solved_for_a_drop_and_for_a_time() -> None:
    data = answers(2, 2000)
    found = find_frontier(data)
    fast = found.solve(max_drop=1.5)
    assert fast.accuracy >= data.correct[:, -1].mean() - 0.015
    assert all(p.mean_ms >= fast.mean_ms for p in found.points if p.accuracy >= found.full - 0.015)
    assert found.solve(max_drop=100).mean_ms == pytest.approx(data.path_ms[0], rel=0.01)
    good = found.solve(max_ms=fast.mean_ms)
    assert good == fast
    assert found.solve(max_ms=1e9) == found.points[0]
    assert found.solve(max_drop=1.5, max_ms=fast.mean_ms) == fast
    with pytest.raises(StepFailed, match=r"none lose at most 1\.5 points within"):
        found.solve(max_drop=1.5, max_ms=0.99 * fast.mean_ms)


def test_a_time_that_cannot_be_had_is_told_with_the_least() -> None:
    found = find_frontier(answers(2))
    with pytest.raises(
        StepFailed, match=f"within 0.1 ms: the fastest take {found.points[-1].mean_ms:.3g} ms"
    ):
        found.solve(max_ms=0.1)


def test_thresholds_lie_between_scores() -> None:
    """So that the rounding of another runtime turns nothing."""
    data = answers(2, 2000)
    for line, column in zip(threshold_grid(data, 32), data.scores.T, strict=True):
        assert line[-1] == 1
        assert line[0] == 0
        assert np.abs(line[1:-1, None] - column).min() > 0.004
        assert 20 < len(line) <= 33
