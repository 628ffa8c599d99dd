"""What is drawn of a long run's curves."""

from itertools import pairwise

import pytest

from app.components.run_charts import MOST_POINTS, thinned
from db.models import Point


@pytest.mark.parametrize("count", [1, 2, MOST_POINTS, MOST_POINTS + 1, 12_345])
def test_a_long_curve_is_thinned_evenly_and_ends_where_it_is(count: int) -> None:
    kept = [point.epoch for point in thinned([Point(epoch=epoch) for epoch in range(1, count + 1)])]
    assert len(kept) <= MOST_POINTS + 1
    assert len(kept) > min(count - 1, MOST_POINTS // 2)
    assert (kept[0], kept[-1]) == (1, count)
    gaps = {later - earlier for earlier, later in pairwise(kept[:-1])}
    assert len(gaps) <= 1
