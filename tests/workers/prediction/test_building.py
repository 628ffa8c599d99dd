"""A table of a net with three layers, and of one whose channels cannot be followed."""

import itertools
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.workers.prediction.quick import CPU, PLACE, BrokenOff, built, model_with, quickly, until
from tests.workers.prediction.tables import spec
from tests.workers.pruning.networks import SPEC, Residual, chain, chain_macs
from workers.base import Candidate
from workers.catalog import METHODS
from workers.errors import StepFailed
from workers.graph.students import known
from workers.prediction import networks
from workers.prediction.building import renewed, table_key
from workers.prediction.expecting import Predictor
from workers.prediction.networks import ODD
from workers.prediction.rewriting import OTHERS
from workers.pruning.groups import CannotFollow


class Halves(nn.Module):
    """Half of the channels pass by, then all are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.right = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.stem(x)).chunk(2, 1)
        x = torch.cat([left, torch.relu(self.right(right))], 1)
        x = x.view(x.shape[0], 2, 8, 8, 8).transpose(1, 2).reshape(x.shape[0], 16, 8, 8)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


def test_a_table_holds_networks_that_were_really_made(tmp_path: Path) -> None:
    table = built(model_with(chain, 0), tmp_path)  # type: ignore[arg-type]
    whole, half, some = table.float32
    assert whole.ratio == 1
    assert [set(row.left.values()) for row in (whole, half)] == [{1.0}, {0.5}]
    assert table.plan.macs_left(half.left) == pytest.approx(chain_macs(16, 32) / chain_macs(32, 64), rel=1e-6)
    for row in (whole, half, some, *table.int8):
        assert set(row.layers) == {"0", "3", "7"}
        assert sum(row.layers.values()) == pytest.approx(row.ratio)
    assert [row.left for row in table.int8] == [whole.left]
    assert [set(row.layers) for row in table.thin] == [{"0", "3", "7"}]
    assert table.steps[0].macs == 1
    widths = {tuple(s for t in onnx.load(f).graph.initializer if len(t.dims) == 4 for s in t.dims[:1])
              for f in tmp_path.glob("width-*.onnx") if "int8" not in f.name}  # fmt: skip
    assert {(32, 64), (16, 32)} < widths


@pytest.mark.slow  # exports and times a dozen networks
def test_a_table_of_every_kind_of_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANDOM", 0), ("INT8", 2), ("ODD", ODD), ("OTHERS", OTHERS)):
        monkeypatch.setattr(networks, name, value)
    small = spec("cifar_resnet8", 16)
    found = built(Candidate(small, known("cifar_resnet8", small, seed=0)), tmp_path)
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


def test_what_was_built_and_timed_is_kept(tmp_path: Path) -> None:
    """Broken off at the last network, and while layers are timed: nothing of it is made again."""
    model = model_with(chain, 0)  # type: ignore[arg-type]
    made: list[set[tuple[str, int]]] = []
    for text in ("other widths: 3", "timing layers", "steps of training"):
        with pytest.raises(BrokenOff):
            built(model, tmp_path, until(text))
        made.append({(f.name, f.stat().st_mtime_ns) for f in tmp_path.glob("*.onnx")})
    assert [len(files) for files in made] == [2, 6, 6]
    assert all(before <= after for before, after in itertools.pairwise(made))
    times = (tmp_path / "times.json").stat().st_mtime_ns
    table = built(model, tmp_path)
    assert (tmp_path / "times.json").stat().st_mtime_ns == times
    assert len(table.float32) == 3
    assert {f.suffix for f in tmp_path.iterdir()} == {".onnx", ".json"}


def test_other_widths_have_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokenOff):
        built(model_with(chain, 0), tmp_path, until("int8"))  # type: ignore[arg-type]
    before = {f.name for f in tmp_path.iterdir()}
    monkeypatch.setattr(networks, "UNIFORM", (0.25,))
    with pytest.raises(BrokenOff):
        built(model_with(chain, 0), tmp_path, until("int8"))  # type: ignore[arg-type]
    assert len({f.name for f in tmp_path.iterdir()} - before) == 1


def test_channels_that_cannot_be_followed_leave_a_table_of_the_model_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of some architectures (shufflenet_v2_x0_5) not even a cut of nothing can be followed."""

    def fails(*_: object) -> None:
        raise CannotFollow("ZeroDivisionError: integer division or modulo by zero")

    monkeypatch.setattr(networks, "cut", fails)
    table = built(model_with(Halves, 0), tmp_path)
    assert [(row.left, row.ratio) for row in table.float32] == [({}, 1.0)]
    assert len(table.steps) == 1
    predictor = Predictor(table)
    pruned = predictor.expect([METHODS["structured_pruning"]()])
    assert pruned.ratio is None
    assert "cannot be followed" in pruned.why
    assert predictor.expect([METHODS["fine_tuning"]()]).ratio == pytest.approx(1, rel=0.01)


def test_times_are_shared_by_fine_tunings_but_not_what_they_learnt(tmp_path: Path) -> None:
    """Only the plan follows the weights."""
    one, other = (model_with(Residual, seed) for seed in (0, 1))
    assert table_key(one, PLACE, CPU) == table_key(other, PLACE, CPU)
    table = built(one, tmp_path)
    shared, own = renewed(table, other), built(other, tmp_path)
    assert shared is not None
    assert shared.plan == own.plan != table.plan
    assert shared.float32 == table.float32
    assert table_key(model_with(chain, 0), PLACE, CPU) != table.key  # type: ignore[arg-type]
    assert renewed(table, model_with(Halves, 0)) is None


def test_an_onnx_file_has_no_widths(tmp_path: Path) -> None:
    for ask in (
        lambda model: table_key(model, PLACE, CPU),
        lambda model: built(model, tmp_path),
    ):
        with pytest.raises(StepFailed, match="no layers that could change"):
            ask(Candidate(SPEC, onnx=tmp_path / "net.onnx"))
