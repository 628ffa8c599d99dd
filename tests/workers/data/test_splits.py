import numpy as np
import pytest
from hypothesis import given as for_any
from hypothesis import settings
from hypothesis import strategies as st

from workers.base import SPLITS, Split
from workers.data.splits import UNSAID, apportion, make_splits

CLASSES = tuple("abcde")
label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=400)
given_lists = st.lists(st.integers(UNSAID, 3), min_size=400, max_size=400)


@for_any(label_lists, given_lists, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_sample_is_in_one_split_and_what_was_given_stays(
    labels: list[int], given: list[int], seed: int
) -> None:
    said = np.array(given[: len(labels)])
    splits, _ = make_splits(np.array(labels), said, CLASSES, seed)
    together = np.concatenate([splits[split] for split in SPLITS])
    assert sorted(together.tolist()) == list(range(len(labels)))
    for position, split in enumerate(SPLITS[1:], start=1):
        if (said == position).any():
            assert set(splits[split]) == set(np.flatnonzero(said == position))


@for_any(label_lists, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_class_of_four_is_in_every_split_and_no_class_loses_its_training_samples(
    labels: list[int], seed: int
) -> None:
    counts = np.bincount(labels, minlength=5)
    splits, sentences = make_splits(np.array(labels), np.full(len(labels), UNSAID), CLASSES, seed)
    for label in range(5):
        inside = [split for split in SPLITS if label in np.array(labels)[splits[split]]]
        if counts[label] >= 4:
            assert len(inside) == 4
        elif counts[label]:
            assert "train" in inside
            assert f"{CLASSES[label]} ({counts[label]})" in sentences[1]


def test_the_shares_of_a_large_set_hold_in_every_class() -> None:
    labels = np.repeat([0, 1, 2], [10_000, 6_000, 4_000])
    splits, sentences = make_splits(labels, np.full(20_000, UNSAID), tuple("abc"), seed=0)
    shares: dict[Split, float] = {"calibration": 0.05, "validation": 0.10, "test": 0.15, "train": 0.70}
    for split, share in shares.items():
        expected = share * np.array([10_000, 6_000, 4_000])
        assert np.bincount(labels[splits[split]]) == pytest.approx(expected, abs=1)
    assert sentences == [
        "Made calibration, validation and test splits from train, stratified, seed 0 "
        "(14,000 train / 1,000 calibration / 2,000 validation / 3,000 test)."
    ]


def test_what_rounding_leaves_goes_to_the_largest_remainders() -> None:
    """Quotas 6.8, 2.3 and 0.9 of ten."""
    assert apportion(np.array([68, 23, 9]), 10).tolist() == [7, 2, 1]


@pytest.mark.parametrize(
    ("samples", "calibration"), [(100, 20), (500, 100), (1000, 100), (4000, 200), (40_000, 1000)]
)
def test_calibration_takes_a_hundred_where_it_can_and_never_over_a_thousand(
    samples: int, calibration: int
) -> None:
    labels = np.arange(samples) % 10
    splits, _ = make_splits(labels, np.full(samples, UNSAID), tuple("0123456789"), seed=0)
    assert len(splits["calibration"]) == calibration


def test_only_the_missing_splits_are_cut_and_only_from_train() -> None:
    labels = np.arange(2000) % 4
    given = np.repeat([SPLITS.index("train"), SPLITS.index("validation")], [1500, 500])
    splits, sentences = make_splits(labels, given, tuple("abcd"), seed=0)
    assert [len(splits[split]) for split in SPLITS] == [1175, 100, 500, 225]
    assert splits["test"].max() < 1500
    assert sentences[0].startswith("Made calibration and test splits from train")


def test_the_seed_decides_and_nothing_else() -> None:
    labels, given = np.arange(300) % 3, np.full(300, UNSAID)
    first, again, other = (make_splits(labels, given, tuple("abc"), seed)[0] for seed in (1, 1, 2))
    assert all(np.array_equal(first[split], again[split]) for split in SPLITS)
    assert not np.array_equal(np.sort(first["test"]), np.sort(other["test"]))


def test_the_first_samples_of_a_split_are_a_fair_draw() -> None:
    """Folders are read class by class; the head of a split must not be one class only."""
    labels = np.repeat(np.arange(10), 100)
    splits, _ = make_splits(labels, np.full(1000, UNSAID), tuple("0123456789"), seed=0)
    assert len(set(labels[splits["calibration"][:50]])) >= 8
