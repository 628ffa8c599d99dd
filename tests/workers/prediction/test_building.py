"""A small table, built and timed for real, and the files that it is about, by their own sizes."""

from pathlib import Path

import pytest
import torch

from tests.support.arrays import candidate
from tests.workers.prediction.tables import spec
from workers import turns
from workers.base import Candidate
from workers.catalog import METHODS
from workers.errors import StepFailed
from workers.graph.students import known
from workers.places import USUAL, choose
from workers.prediction import networks, timing
from workers.prediction.building import build
from workers.prediction.expecting import Predictor

MODEL = spec("cifar_resnet8", 16)


@pytest.mark.slow  # exports and times a dozen networks
def test_a_table_of_every_kind_of_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))
    for module, name, value in (
        (networks, "UNIFORM", (0.5,)),
        (networks, "RANDOM", 0),
        (networks, "THIN", (0.5,)),
        (timing, "LATENCY_SECONDS", 0.01),
        (timing, "PROFILED_RUNS", 2),
    ):
        monkeypatch.setattr(module, name, value)
    place, told = choose(USUAL, 1).steps, list[str]()
    model = Candidate(MODEL, known("cifar_resnet8", MODEL, seed=0))
    found = build(
        model, "k", place, torch.device("cpu"), tmp_path, tmp_path / "kept", lambda p: told.append(p.text)
    )
    assert found.notes == ()
    assert [len(rows) for rows in (found.float32, found.int8, found.odd, found.thin)] == [2, 2, 3, 1]
    assert {(w.mode, round(w.macs, 1)) for w in found.written} == {
        (mode, macs) for mode in ("dynamic", "fp16", "bf16") for macs in (1.0, 0.3)
    }
    assert all(found.plan.has_odd_widths(row.left) for row in found.odd)
    assert not any(found.plan.has_odd_widths(row.left) for row in found.float32)
    assert found.rounded is not None
    assert found.rounded > 0
    sizes = {w.mode: w.size for w in found.written if w.macs == 1}
    assert sizes["fp16"] == pytest.approx(0.5, abs=0.1)
    assert sizes["bf16"] == pytest.approx(0.5, abs=0.1)
    assert 0.2 < found.int8[0].size < 0.45
    expected = Predictor(found).expect([METHODS["quantization"].model_validate({"mode": "fp16"})])
    assert expected.ratio is not None
    assert expected.ratio > 0


def test_an_onnx_file_has_no_table(tmp_path: Path) -> None:
    place = choose(USUAL, 1).steps
    with pytest.raises(StepFailed, match="ONNX"):
        build(candidate(None), "k", place, torch.device("cpu"), tmp_path, tmp_path / "kept", lambda _: None)
