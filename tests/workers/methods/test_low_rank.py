"""Multiply-accumulates and ranks are known from formulas; times are real, of the exported layers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, fx, nn

from tests.support.arrays import candidate, context, easy_data
from workers.base import Candidate, Context
from workers.deploy.export import export_onnx
from workers.deploy.parity import check_parity
from workers.errors import StepFailed
from workers.factors import timing
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.methods import low_rank
from workers.methods.fine_tuning import FineTuning
from workers.methods.low_rank import LowRank
from workers.methods.structured_pruning import StructuredPruning


def chain(width: int = 16) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Conv2d(2 * width, width, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * width, 3),
    )


class Mixed(nn.Module):
    """A layer that is called twice, and one in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise, self.fc = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.twice(torch.relu(self.twice(self.stem(x)))))
        logits: Tensor = self.fc(self.depthwise(x).mean((2, 3)))
        return logits


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def model_of(net: nn.Module) -> Candidate:
    return candidate(fx.symbolic_trace(net).eval())


def kernels(graph: nn.Module | None) -> dict[str, tuple[int, ...]]:
    assert graph is not None
    return {
        name: tuple(module.weight.shape[:2])
        for name, module in graph.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def test_half_the_rank(tmp_path: Path) -> None:
    after = LowRank(rank_by="ratio", only_faster=False, ratio=0.5, round_to=1).apply(
        model_of(chain()), context(tmp_path)
    )
    assert kernels(after.graph) == {
        "0": (16, 1),
        "3.0": (8, 16), "3.1": (16, 8), "3.2": (32, 16),
        "6.0": (8, 32), "6.1": (16, 8),
        "9.0": (2, 256), "9.1": (3, 2),
    }  # fmt: skip
    pixels = (64, 16)
    before = pixels[0] * 9 * 16 + pixels[1] * (9 * 16 * 32 + 32 * 16) + 256 * 3
    now = (
        pixels[0] * 9 * 16
        + pixels[0] * 16 * 8 + pixels[1] * (9 * 8 * 16 + 16 * 32)
        + pixels[1] * (32 * 8 + 8 * 16)
        + 256 * 2 + 2 * 3
    )  # fmt: skip
    assert after.notes == (
        f"Factorised 3 of 4 layers; {1 - now / before:.1%} of the multiply-accumulates are gone.",
        "Left alone, because their parts would need as many multiply-accumulates: 0.",
    )


def test_ranks_are_rounded_up_and_layers_that_get_no_cheaper_stay(tmp_path: Path) -> None:
    after = LowRank(rank_by="ratio", only_faster=False, ratio=0.6).apply(model_of(chain()), context(tmp_path))
    assert kernels(after.graph) == {
        "0": (16, 1), "3.0": (24, 16), "3.1": (32, 24), "6": (16, 32), "9": (3, 256),
    }  # fmt: skip
    assert after.notes[1:] == (
        "Left alone, because their parts would need as many multiply-accumulates: 0, 6, 9.",
    )


def test_the_energy_decides_layer_by_layer(tmp_path: Path) -> None:
    net = chain()
    with torch.no_grad():
        left, right = torch.randn(32, 3), torch.randn(3, 16)
        net[6].weight.copy_((left @ right).T[..., None, None])  # type: ignore[operator]
    after = LowRank(rank_by="energy", only_faster=False, energy=0.999, round_to=1).apply(
        model_of(net), context(tmp_path, data=easy_data())
    )
    expected = kernels(net) | {"6.0": (3, 32), "6.1": (16, 3)}
    del expected["6"]
    assert kernels(after.graph) == expected


def test_layers_that_are_called_twice_or_grouped(tmp_path: Path) -> None:
    model = model_of(Mixed())
    after = LowRank(rank_by="ratio", only_faster=False).apply(model, context(tmp_path))
    assert after.graph is not None
    called = [str(node.target) for node in after.graph.graph.nodes if node.op == "call_module"]
    assert called == [
        "stem", "twice.0", "twice.1", "twice.2", "twice.0", "twice.1", "twice.2", "depthwise", "fc",
    ]  # fmt: skip
    assert after.notes[-1] == "Left alone, because their channels are in groups: depthwise."


def test_statistics_are_those_of_the_training_samples(tmp_path: Path) -> None:
    """Those of the whole net do not fit the factorised one: variances shrink with the rank."""
    run = context(tmp_path, data=easy_data(train=64))
    model = model_of(chain())
    settings = {"rank_by": "ratio", "only_faster": False, "round_to": 1}
    after = LowRank.model_validate(settings).apply(model, run).graph
    as_it_was = LowRank.model_validate(settings | {"recalibrate": False}).apply(model, run).graph
    assert after is not None
    assert as_it_was is not None
    images, _ = run.data.splits["train"]  # type: ignore[attr-defined]
    with torch.no_grad():
        first = after.get_submodule("0")(images)
        first = (first - first.mean((0, 2, 3), keepdim=True)) / first.var((0, 2, 3), keepdim=True).sqrt()
        features = nn.Sequential(*(after.get_submodule(f"3.{i}") for i in range(3)))(first.relu())
    torch.testing.assert_close(
        after.get_buffer("4.running_mean"), features.mean((0, 2, 3)), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(after.get_buffer("4.running_var"), features.var((0, 2, 3)), rtol=1e-3, atol=0)
    assert torch.equal(as_it_was.get_buffer("4.running_mean"), torch.zeros(32))
    for name, weight in after.named_parameters():
        assert torch.equal(weight, as_it_was.get_parameter(name))
    assert not any(module.training for module in after.modules())


def times_by_width(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Give times instead of taking them: 0.9 above a width of 8, 0.6 at 8, 0.1 below, linear layers 1.1."""
    asked = []

    def ratios(layers: Sequence[nn.Module], inputs: Tensor, run: Context) -> list[float]:  # noqa: ARG001
        asked.append((str(layers[0]), tuple(inputs.shape)))
        if isinstance(layers[0], nn.Linear):
            return [1.1] * (len(layers) - 1)
        widths = [part[0].weight.shape[0] for part in layers[1:]]  # type: ignore[index]
        return [0.9 if width > 8 else 0.6 if width == 8 else 0.1 for width in widths]

    monkeypatch.setattr(low_rank, "latency_ratios", ratios)
    return asked


def test_by_time_the_largest_rank_that_is_fast_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = times_by_width(monkeypatch)
    net = nn.Sequential(*chain()[:3], *[nn.Conv2d(16, 16, 3, padding=1) for _ in range(2)], *chain()[3:])
    after = LowRank(time=0.7, round_to=4).apply(model_of(net), context(tmp_path))
    found = kernels(after.graph)
    assert found["3.1"] == found["4.1"] == (8, 8)
    assert after.notes[1:] == (
        "Left alone, because their parts would need as many multiply-accumulates: 11.",
    )
    assert [kind for kind, _ in asked].count(str(net[3])) == 1  # layers of one kind are timed once
    assert asked[0][1] == (1, 1, 8, 8)


def test_layers_that_get_slower_stay_whatever_decides_the_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_by_width(monkeypatch)
    for settings in ({"rank_by": "ratio"}, {"rank_by": "energy", "energy": 0.3}):
        method = LowRank.model_validate(settings | {"round_to": 1})
        assert method.depends_on_target
        after = method.apply(model_of(chain()), context(tmp_path))
        assert kernels(after.graph)["9"] == (3, 256)
        assert (
            after.notes[-1]
            == "Left alone, because their parts were timed at more than 1.00 of their time: 9 (1.10)."
        )


def test_times_are_taken_on_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution of 64 channels is faster at an eighth of its rank, and a classifier of 3 is not."""
    monkeypatch.setattr(timing, "SECONDS", 0.05)
    monkeypatch.setattr(low_rank, "TIMED_SHARES", (0.125,))
    method = LowRank(time=0.8)
    assert method.depends_on_target
    assert not LowRank(rank_by="ratio", only_faster=False).depends_on_target
    after = method.apply(model_of(chain(64)), context(tmp_path))
    found = kernels(after.graph)
    assert (found["3.0"], found["3.1"], found["3.2"]) == ((8, 64), (16, 8), (128, 16))
    assert found["9"] == (3, 1024)
    assert not list(tmp_path.iterdir())


def test_the_result_is_a_model_like_any_other(tmp_path: Path) -> None:
    """Saved and opened again, exported, trained and pruned."""
    write_archive(trace(chain(), candidate(None).spec.preprocessing), tmp_path / "up.pt2")
    run = context(tmp_path)
    uploaded = open_model(tmp_path / "up.pt2", candidate(None).spec)
    model = LowRank(rank_by="ratio", only_faster=False).apply(uploaded, run)
    assert model.graph is not None
    inputs = run.data.splits["validation"][0]  # type: ignore[attr-defined]
    export_onnx(model, tmp_path / "model.onnx", run.data.classes)
    parity = check_parity(model, tmp_path / "model.onnx", [inputs], run.runtime)
    assert parity is not None
    assert parity.samples == len(inputs)
    write_archive(trace(model.graph, model.spec.preprocessing), tmp_path / "down.pt2")
    opened = open_model(tmp_path / "down.pt2", model.spec)
    assert opened.graph is not None
    assert kernels(opened.graph) == kernels(model.graph)
    torch.testing.assert_close(opened.graph(inputs), model.graph(inputs))
    tuned = FineTuning(epochs=4, batch_size=16, learning_rate=0.02).apply(opened, run)
    assert tuned.graph is not None
    right = (tuned.graph(inputs).argmax(1) == run.data.splits["validation"][1]).float().mean()  # type: ignore[attr-defined]
    assert right > 0.9
    pruned = StructuredPruning(amount=0.3, round_to=1).apply(tuned, run)
    before, after = kernels(tuned.graph), kernels(pruned.graph)
    assert sum(after[name] != before[name] for name in before) > 5


def test_the_given_model_is_left_as_it_is(tmp_path: Path) -> None:
    net = chain()
    model = model_of(net)
    LowRank(rank_by="ratio", only_faster=False).apply(model, context(tmp_path))
    assert model.graph is not None
    state = net.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.graph.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.graph.modules())


def test_zeros_that_are_lost_are_told(tmp_path: Path) -> None:
    sparse = dataclasses.replace(model_of(chain()), sparse=True)
    after = LowRank(rank_by="ratio", only_faster=False).apply(sparse, context(tmp_path))
    assert after.notes[-1] == "The zeros that an earlier step put into the factorised layers are gone."


def test_nothing_gets_cheaper(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"no layer gets cheaper at energy=0.99, round_to=64\. Lower energy"):
        LowRank(rank_by="energy", energy=0.99, round_to=64).apply(model_of(chain()), context(tmp_path))


def test_refuses_a_model_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ONNX"):
        LowRank().apply(candidate(None), context(tmp_path))


@pytest.mark.parametrize(
    "setting", [{"rank_by": "size"}, {"energy": 1}, {"ratio": 0}, {"time": 1}, {"round_to": 0}]
)
def test_refuses_settings_out_of_bounds(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LowRank.model_validate(setting)
