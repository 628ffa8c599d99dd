import numpy as np
import pytest
from scipy.stats import norm

from workers.data import warn_if_trained_on


def test_the_limit_is_where_the_formula_by_hand_puts_it() -> None:
    """Equal sizes n, pooled p: z = (a - b) / sqrt(2 p (1 - p) / n); one-sided 1 % is z = 2.326."""
    n, test = 1000, 900

    def z(validation: int) -> float:
        p = (validation + test) / (2 * n)
        return float((validation - test) / n / np.sqrt(2 * p * (1 - p) / n))

    first = next(right for right in range(900, 1000) if z(right) > 2.3263)
    assert warn_if_trained_on(first - 1, n, test, n) is None
    assert "probably trained on the validation samples" in str(warn_if_trained_on(first, n, test, n))
    assert norm.sf(2.3263) == pytest.approx(0.01, rel=1e-3)


def test_a_network_trained_on_validation_is_told() -> None:
    assert warn_if_trained_on(500, 500, 700, 750) is not None


@pytest.mark.parametrize(
    "counts", [(450, 500, 690, 750), (400, 500, 740, 750), (500, 500, 750, 750), (0, 5, 0, 5), (0, 0, 3, 5)]
)
def test_nothing_is_said_of_chance_of_a_worse_validation_or_without_samples(
    counts: tuple[int, int, int, int],
) -> None:
    assert warn_if_trained_on(*counts) is None


def test_one_honest_network_in_a_hundred_is_suspected() -> None:
    chance = np.random.default_rng(0)
    pairs = zip(chance.binomial(500, 0.9, 3000), chance.binomial(750, 0.9, 3000), strict=True)
    alarms = sum(warn_if_trained_on(int(right), 500, int(test), 750) is not None for right, test in pairs)
    assert 10 < alarms < 60
