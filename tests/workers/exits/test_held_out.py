"""A view that shows half of validation, whole and in the same order everywhere."""

import numpy as np
import pytest
import torch

from tests.support.arrays import easy_data
from workers.base import Split
from workers.exits.held_out import WithoutHeldOut, halves


def test_every_sample_is_in_one_half() -> None:
    proposing, testing = halves(49, 3)
    assert len(proposing) == 25
    assert sorted([*proposing, *testing]) == list(range(49))
    assert not np.array_equal(proposing, halves(49, 4)[0])
    assert [len(half) for half in halves(1, 0)] == [1, 0]


@pytest.mark.parametrize("size", [1, 5, 16, 100])
@pytest.mark.parametrize("shuffle", [None, 7])
def test_validation_is_the_proposing_half_and_nothing_else_changes(size: int, shuffle: int | None) -> None:
    data = easy_data(validation=49)
    view, (proposing, _) = WithoutHeldOut(data, 3), halves(49, 3)
    splits: tuple[Split, ...] = ("train", "calibration", "validation")
    for split in splits:
        rows = proposing if split == "validation" else np.arange(len(data.labels(split)))
        np.testing.assert_array_equal(view.labels(split), data.labels(split)[rows])
        order = view.order(split, shuffle)
        assert sorted(order) == list(range(len(rows)))
        batches = list(view.batches(split, size, shuffle=shuffle))
        assert all(len(labels) == size for _, labels in batches[:-1])
        inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert torch.equal(inputs, data.splits[split][0][rows[order]])
        assert torch.equal(labels, data.splits[split][1][rows[order]])
