"""What an import job keeps beside the file."""

import numpy as np
import pytest

from workers.work.pictures import specimens


@pytest.mark.parametrize(
    ("labels", "count", "expected"),
    [
        ([2, 2, 2, 0, 2, 0, 1], 5, [3, 6, 0, 5, 1]),
        ([2, 2, 2, 0, 2, 0, 1], 100, [3, 6, 0, 5, 1, 2, 4]),
        ([1, 1, 1], 2, [0, 1]),
        ([4, 3, 2, 1, 0], 3, [4, 3, 2]),
    ],
)
def test_every_class_is_shown_before_one_is_shown_twice(
    labels: list[int], count: int, expected: list[int]
) -> None:
    assert specimens(np.array(labels), count).tolist() == expected
