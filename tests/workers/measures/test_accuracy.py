import fcntl
import os
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.arrays import ArrayData
from tests.support.staged import CLASSES, PLAN, SPEC, samples
from workers.base import Artefact, Bench, Candidate, Session
from workers.deploy.one_file import compose_one_file
from workers.host import logical_cores
from workers.measures.accuracy import Accuracy, answers_file
from workers.runtimes.onnxruntime import OnnxRuntime


def wilson(share: float, samples: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson (1927), written out."""
    centre = share + z**2 / (2 * samples)
    half = z * sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2))
    return (centre - half) / (1 + z**2 / samples), (centre + half) / (1 + z**2 / samples)


def test_share_and_interval_of_both_splits(linear: Artefact, bench: Bench, pictures: Any) -> None:
    """The last batch is short; fails when batches are averaged instead of samples."""
    wrong = {"validation": range(50, 70), "test": range(100, 130)}
    for split, places in wrong.items():
        pictures.truth[split][list(places)] = (pictures.truth[split][list(places)] + 1) % 5
    ((validation, test),) = Accuracy().take([linear], bench)
    assert (validation.split, validation.samples, test.split, test.samples) == ("validation", 70, "test", 130)
    assert validation.value == pytest.approx(50 / 70)
    assert test.value == pytest.approx(100 / 130)
    assert (validation.low, validation.high) == pytest.approx(wilson(50 / 70, 70))
    assert (test.low, test.high) == pytest.approx(wilson(100 / 130, 130))
    assert {(m.name, m.unit, m.better, m.target) for m in (validation, test)} == {
        ("accuracy", "share", "higher", bench.target)
    }


def test_the_single_answers_are_kept_beside_the_file(linear: Artefact, bench: Bench, pictures: Any) -> None:
    pictures.truth["test"][[3, 7]] = (pictures.truth["test"][[3, 7]] + 1) % 5
    Accuracy().take([linear], bench)
    with np.load(answers_file(linear.file, bench.target), allow_pickle=False) as kept:
        assert kept["validation"].shape == (70,)
        assert np.flatnonzero(kept["test"] != kept["test_labels"]).tolist() == [3, 7]
        np.testing.assert_array_equal(kept["test_labels"], pictures.truth["test"])


def test_a_perfect_score_is_not_certain(linear: Artefact, bench: Bench) -> None:
    ((validation, _),) = Accuracy().take([linear], bench)
    assert validation.value == 1
    assert validation.high == pytest.approx(1)
    assert validation.low == pytest.approx(wilson(1, 70)[0])


def test_uses_every_core_and_makes_way_for_measurements(
    linear: Artefact, bench: Bench, own_turns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its load would disturb a latency that is taken meanwhile. Fails without a turn per batch."""
    threads_asked: list[int] = []
    batches: list[int] = []

    class Watched(Session):
        def run(self, inputs: np.ndarray) -> np.ndarray:
            descriptor = os.open(own_turns / "paredown-bench.lock", os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # others may compute
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # but not measure
            os.close(descriptor)
            batches.append(len(inputs))
            return np.zeros((len(inputs), 5), np.float32)

    def opened(_: OnnxRuntime, file: Path, *, threads: int) -> Session:  # noqa: ARG001
        threads_asked.append(threads)
        return Watched()

    monkeypatch.setattr(OnnxRuntime, "open", opened)
    Accuracy().take([linear], bench)
    assert threads_asked == [logical_cores()]
    assert batches == [64, 6, 64, 64, 2]


def test_with_early_exits_every_sample_leaves_for_itself(
    segment_files: list[Path], tmp_path: Path, bench: Bench
) -> None:
    """In batches the unsure samples would keep the others in."""
    compose_one_file(segment_files, PLAN, tmp_path / "model.onnx", SPEC, CLASSES)
    session = OnnxRuntime().open(tmp_path / "model.onnx", threads=1)
    images = samples(100)
    alone = np.concatenate([session.run(image[None]) for image in images]).argmax(axis=1)
    together = session.run(images).argmax(axis=1)
    assert (alone != together).any()
    split = torch.from_numpy(images), torch.from_numpy(alone)
    data = ArrayData({"validation": split, "test": split}, CLASSES)
    artefact = Artefact(tmp_path / "model.onnx", Candidate(SPEC, exits=PLAN))
    ((validation, _),) = Accuracy().take([artefact], replace(bench, data=data))
    assert validation.value == 1
