"""Cells against what is known without them: layers of zeros, the pipeline, the networks run by hand."""

import copy
import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.support.arrays import ArrayData, context, easy_data
from tests.workers.pruning.networks import model_of
from workers import measuring, turns
from workers.base import Context, Split, Target
from workers.catalog import MEASURES
from workers.measures import latency
from workers.pipeline import Job, run
from workers.recipe import parse_recipe
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.sensitivity import analysis
from workers.sensitivity.analysis import Analysis
from workers.sensitivity.integers import OneByOne
from workers.sensitivity.table import INT8, SHARES, Asked, Table, pruned_by

UNTIMED = Asked(samples=4096, timing_seconds=0)


@pytest.fixture(autouse=True)
def own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))
    torch.manual_seed(0)


class Net(nn.Module):
    """stem and b are coupled by the addition; a is alone. No layer's dead channels reach the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)
        self.b, self.fc = nn.Conv2d(12, 16, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits

    def balanced(self, images: torch.Tensor) -> "Net":
        """So that every class is answered: else no cut changes an answer."""
        with torch.no_grad():
            self.fc.weight *= 30
            self.fc.bias.sub_(self(images).mean(0))
        return self


def silent(conv: nn.Conv2d, channels: int) -> None:
    """The first channels give nothing, whatever comes."""
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight[:channels], conv.bias[:channels] = 0, 0


def pruned_only(net: nn.Module, layer: str, folder: Path, data: ArrayData | None = None) -> Analysis:
    """An analysis of one layer without int8, which takes seconds."""
    made = Analysis(model_of(net), context(folder, data=data), UNTIMED)
    made.layers = [layer]
    made._integers = lambda: None  # type: ignore[method-assign]
    return made


@dataclasses.dataclass(frozen=True)
class Whole:
    """An analysis of all layers; integers: per file of int8 the layers whose weights are in it."""

    net: Net
    data: ArrayData
    tables: list[Table]
    integers: list[set[str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, found = tmp_path_factory.mktemp("whole"), list[set[str]]()
    save = OneByOne.save

    def spied(self: OneByOne, layer: str, file: Path) -> Path:
        stored = onnx.load(save(self, layer, file)).graph.initializer
        suffix = ".weight_quantized"
        found.append({t.name.removesuffix(suffix) for t in stored if t.name.endswith(suffix)})
        return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "LOCK_FOLDER", str(folder))
        patch.setattr(OneByOne, "save", spied)
        torch.manual_seed(0)
        data = with_test_split(easy_data(noise=0.3, validation=300))
        made = Whole(Net().balanced(data.splits["validation"][0]), data, [], found)
        Analysis(model_of(made.net), context(folder, data=made.data), UNTIMED, keep=made.tables.append).run()
    return made


@pytest.mark.parametrize(("quiet", "free"), [(12, 3), (6, 2)], ids=["all", "half"])
def test_what_gives_nothing_is_not_missed(quiet: int, free: int, tmp_path: Path) -> None:
    """Of a layer of zeros every share is free; of one that is half zeros 25 and 50 %."""
    net = Net()
    silent(net.a, quiet)
    made = pruned_only(net, "a", tmp_path)
    table = made.run()
    (row,) = table.rows
    assert [cell.share for cell in row.cells] == [*SHARES]
    assert [cell.divergence for cell in row.cells[:free]] == pytest.approx([0] * free, abs=1e-9)
    assert {cell.accuracy for cell in row.cells[:free]} == {table.accuracy}
    assert all(cell.divergence > 1e-7 for cell in row.cells[free:])


def test_coupled_layers_are_pruned_in_one_row(whole: Whole) -> None:
    table = whole.tables[-1]
    assert [row.layer for row in table.rows] == ["stem", "a", "b", "fc"]
    roots = {row.layer: (row.root, row.coupled) for row in table.rows}
    assert roots == {
        "stem": ("stem", ("b",)), "a": ("a", ()), "b": ("stem", ("stem",)), "fc": ("", ()),
    }  # fmt: skip
    changes = {row.layer: [cell.change for cell in row.cells] for row in table.rows}
    pruned = [pruned_by(share) for share in SHARES]
    assert changes == {"stem": [*pruned, INT8], "a": [*pruned, INT8], "b": [INT8], "fc": [INT8]}


def test_divergence_by_hand(whole: Whole) -> None:
    """Half of `a` made silent in the network itself: the channels whose weights, in and out, are smallest."""
    row, net = whole.tables[-1].row("a"), copy.deepcopy(whole.net)
    assert row is not None
    with torch.no_grad():
        norms = net.a.weight.flatten(1).pow(2).sum(1) + net.b.weight.transpose(0, 1).flatten(1).pow(2).sum(1)
        images = whole.data.splits["validation"][0]
        before = net(images).double().log_softmax(1)
        assert net.a.bias is not None
        net.a.weight[norms.argsort()[:6]], net.a.bias[norms.argsort()[:6]] = 0, 0
        after = net(images).double().log_softmax(1)
    expected = float((before.exp() * (before - after)).sum(1).mean())
    cell = row.cell(pruned_by(0.5))
    assert cell is not None
    assert cell.divergence == pytest.approx(expected, rel=1e-3)


def with_test_split(data: ArrayData) -> ArrayData:
    splits: dict[Split, tuple[torch.Tensor, torch.Tensor]] = dict(data.splits)
    return ArrayData({**splits, "test": splits["validation"]}, data.classes)


def test_a_cell_is_what_the_pipeline_gives_for_that_layer_amount(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {name: measure for name, measure in MEASURES.items() if not measure.together}
    monkeypatch.setattr(measuring, "MEASURES", MappingProxyType(alone))
    row = whole.tables[-1].row("stem")
    assert row is not None
    step = (
        "{method: structured_pruning, amount: 0, layer_amounts: {b: 0.75}, round_to: 1, "
        "recovery: none, recalibrate: false}"  # b goes with stem
    )
    outcome = run(
        Job(
            model=model_of(whole.net),
            data=whole.data,
            dataset="d" * 64,
            recipe=parse_recipe(f"steps: [{step}]", "r"),
            folder=tmp_path / "stages",
            runtime=OnnxRuntime(),
            target=Target(host="here"),
            device=torch.device("cpu"),
            seed=0,
        )
    )
    accuracies = [
        m.value for m in outcome.stages[1].measurements if (m.name, m.split) == ("accuracy", "validation")
    ]
    cell = row.cell(pruned_by(0.75))
    assert cell is not None
    assert cell.accuracy != whole.tables[-1].accuracy
    assert accuracies == [cell.accuracy]


def test_int8_is_one_layer_alone(whole: Whole) -> None:
    assert whole.integers == [{"stem"}, {"a"}, {"b"}, {"fc"}]
    cells = [row.cell(INT8) for row in whole.tables[-1].rows]
    assert all(cell is not None and 0 < cell.divergence < 1 for cell in cells)


def test_what_an_earlier_attempt_finished_is_not_done_again(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(table.rows) for table in whole.tables] == [1, 2, 3, 4, 4]
    assert [table.whole for table in whole.tables] == [False] * 4 + [True]
    done: list[str] = []

    def counted(_: Analysis, layer: str, *__: object) -> object:
        done.append(layer)
        return whole.tables[-1].row(layer)

    monkeypatch.setattr(Analysis, "_row", counted)
    given = context(tmp_path, data=whole.data)
    again = Analysis(model_of(whole.net), given, UNTIMED, known=whole.tables[1]).run()
    assert done == ["b", "fc"]
    assert again == whole.tables[-1]


def test_times_end_with_the_time_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "LATENCY", dataclasses.replace(analysis.LATENCY, seconds=0.01))
    made = pruned_only(Net(), "a", tmp_path)
    made.layers, made.asked = ["stem", "a"], Asked(samples=48, timing_seconds=0.01)
    table = made.run()
    ratios = {row.layer: [cell.ratio for cell in row.cells] for row in table.rows}
    assert all(ratio is not None and 0 < ratio < 20 for ratio in ratios["stem"])
    assert ratios["a"] == [None] * 3
    assert table.notes == ("The time for timing (0.01 s) was over before every layer had a time.",)
    assert table.timed_s > 0.01
    made.asked, made.layers = Asked(samples=48, timing_seconds=table.timed_s / 2), ["stem"]
    made.rows = {row.layer: row for row in table.rows if row.layer == "stem"}
    assert made._table(whole=True).notes == ()  # over, and every layer has its times


def test_waiting_for_the_host_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waited = time.perf_counter, [0.0]

    @contextmanager
    def busy() -> Iterator[None]:
        waited[0] += 10_000
        yield

    monkeypatch.setattr(latency, "measuring_turn", busy)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + waited[0])
    monkeypatch.setattr(analysis, "LATENCY", dataclasses.replace(analysis.LATENCY, seconds=0.01))
    made = pruned_only(Net(), "a", tmp_path)
    made.layers, made.asked = ["stem", "a"], Asked(samples=48, timing_seconds=5000)
    table = made.run()
    assert waited == [20_000]
    assert 0 < table.timed_s < 5000
    assert all(cell.ratio for row in table.rows for cell in row.cells)
    assert table.notes == ()


class Tokens(nn.Module):
    """Linear layers on tokens, without biases: in the file each is a MatMul with a weight of no name."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.up = nn.Conv2d(1, 8, 4, stride=4), nn.Linear(8, 16, bias=False)
        self.down, self.fc = nn.Linear(16, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        logits: torch.Tensor = self.fc((x + self.down(torch.relu(self.up(x)))).mean(1))
        return logits


def test_layers_that_become_nameless_products_have_int8_cells(tmp_path: Path) -> None:
    made = Analysis(model_of(Tokens()), context(tmp_path), UNTIMED)
    made._groups = dict  # type: ignore[method-assign]
    integers = made._integers()
    assert integers is not None
    assert integers.layers == {"patch", "up", "down", "fc"}
    integers._names = {node: name for node, name in integers._names.items() if name != "down"}
    made._integers = lambda: integers  # type: ignore[method-assign]
    cells = {row.layer: row.cell(INT8) for row in made.run().rows}
    assert all(cell is not None and bool(cell.why) == (layer == "down") for layer, cell in cells.items())
    up = cells["up"]
    assert up is not None
    assert up.divergence > 0


def test_samples_are_drawn_and_the_same_for_all(tmp_path: Path) -> None:
    """A validation split sorted by class, of which the first third would be one class."""
    data = easy_data(validation=300)
    images, labels = data.splits["validation"]
    order = labels.argsort(stable=True)
    data = ArrayData({**data.splits, "validation": (images[order], labels[order])}, data.classes)
    given: Context = context(tmp_path, data=data)
    made = Analysis(model_of(Net()), given, Asked(samples=90, timing_seconds=0))
    inputs, truth = made._samples()
    assert len(inputs) == len(truth) == 90
    assert np.bincount(truth).min() > 15
    found = [(data.splits["validation"][0].numpy() == one).all((1, 2, 3)).argmax() for one in inputs]
    assert (data.labels("validation")[found] == truth).all()
