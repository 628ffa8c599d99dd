"""What tests a promise has no part in what is promised about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.arrays import ArrayData, candidate, small_net, uploaded
from tests.workers.test_pipeline import data, make
from workers import measuring, pipeline, turns
from workers.calibration import calibrate, choosing
from workers.calibration.path_times import Paths
from workers.exits import placing
from workers.exits.guarantee import Guarantee, guarantee
from workers.exits.held_out import halves
from workers.exits.placing import Spot
from workers.exits.thresholds import Answers, Point
from workers.graph.importing import open_model
from workers.pipeline import HALF_SEEN, run

TUNE = "{method: fine_tuning, epochs: 3, batch_size: 16, learning_rate: 0.003}"
EXITS = (
    "{method: early_exit, exits: [relu_1], epochs: 2, head_epochs: 3, batch_size: 16, max_drop: 10, "
    "guarantee: %s}"
)
SAMPLES = 120


@pytest.fixture(autouse=True)
def untimed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that are the same every time, and nothing measured."""
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path_factory.mktemp("turns")))
    monkeypatch.setattr(measuring, "MEASURES", {})
    monkeypatch.setattr(
        placing,
        "timed_places",
        lambda _, points, *__: [Spot(name=p.name, share=0.5, head=0.1) for p in points],
    )
    monkeypatch.setattr(calibrate, "time_paths", lambda *_, **__: Paths((1.0, 2.0), baseline_ms=2.0))
    monkeypatch.setattr(calibrate, "time_stream", lambda *_, **__: None)
    monkeypatch.setattr(calibrate, "BATCHES", ())


def as_guessed_before() -> ArrayData:
    """The same data, but by what tests the promise no model is as good as the untrained one."""
    told, (_, testing) = data(SAMPLES), halves(SAMPLES, seed=0)
    images, labels = told.splits["validation"]
    guesses = small_net()(images).argmax(1)
    labels = labels.clone()
    labels[testing] = guesses[testing]
    told.splits["validation"] = images, labels
    return told


def test_other_labels_in_the_held_out_half_change_neither_weights_nor_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when an epoch is chosen by all validation samples."""
    proposed: list[Sequence[Point]] = []

    def heard(candidates: Sequence[Point], held_out: Answers, **asked: Any) -> Guarantee:
        proposed.append(candidates)
        return guarantee(candidates, held_out, **asked)

    monkeypatch.setattr(choosing, "guarantee", heard)
    weights = []
    for name, given in (("as it is", data(SAMPLES)), ("guessed", as_guessed_before())):
        outcome = run(make(tmp_path / name, TUNE, EXITS % 0.9, data=given, model=uploaded()))
        for stage in outcome.stages[1:]:
            assert HALF_SEEN in stage.notes
            assert stage.archive is not None
            graph = open_model(stage.archive, candidate(None).spec).graph
            assert graph is not None
            weights.append(torch.cat([value.flatten().float() for value in graph.state_dict().values()]))
    tuned, staged, tuned_again, staged_again = weights
    assert torch.equal(tuned, tuned_again)
    assert torch.equal(staged, staged_again)
    before = torch.cat([value.flatten().float() for value in small_net().state_dict().values()])
    assert not torch.equal(tuned, before)
    assert len(proposed[0]) > 1
    assert proposed[0] == proposed[1]


def test_a_run_with_a_promise_shares_no_step_with_one_without(tmp_path: Path) -> None:
    plain, promised = (list(pipeline._keys(make(tmp_path, TUNE, EXITS % share))) for share in ("0", "0.9"))
    assert [one == other for one, other in zip(plain, promised, strict=True)] == [True, False, False]
    assert list(pipeline._keys(make(tmp_path, TUNE)))[1] == plain[1]
