"""What is checked is known without torch-pruning: widths and multiply-accumulates from the formula, the
channels that must go from weights written by hand, validity by running and training.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_pruning as tp
from pydantic import ValidationError
from torch import fx, nn

from tests.support.arrays import candidate, context
from tests.workers.pruning.networks import (
    PREPROCESSING,
    SPEC,
    Dense,
    Grouped,
    Residual,
    Shuffled,
    Transformer,
    chain,
    chain_macs,
    model_of,
    trains,
    widths,
)
from workers.base import Candidate
from workers.errors import StepFailed
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.methods.structured_pruning import StructuredPruning


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def imported(tmp_path: Path) -> Callable[[nn.Module], Candidate]:
    """As it would be after an upload: rebuilt from a `.pt2`."""

    def load(net: nn.Module) -> Candidate:
        write_archive(trace(net.eval(), PREPROCESSING), tmp_path / "net.pt2")
        return open_model(tmp_path / "net.pt2", SPEC)

    return load


def prune(model: Candidate, folder: Path, amount: float = 0.5, round_to: int = 8) -> fx.GraphModule:
    method = StructuredPruning(amount=amount, round_to=round_to, recovery="none", recalibrate=False)
    pruned = method.apply(model, context(folder)).graph
    assert pruned is not None
    return pruned


@pytest.mark.parametrize("amount", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("round_to", [1, 8])
def test_removes_at_least_the_amount_and_no_width_more(tmp_path: Path, amount: float, round_to: int) -> None:
    pruned = prune(model_of(chain()), tmp_path, amount, round_to)
    first, second, classes = widths(pruned).values()
    whole = chain_macs(32, 64)
    assert classes == 3
    assert first % round_to == second % round_to == 0
    assert 1 - chain_macs(first, second) / whole >= amount
    # All steps of the share, from none: the widths before these ones in that row must fall short.
    row = [
        tuple(max(round_to, round(width * (1 - step / 256) / round_to) * round_to) for width in (32, 64))
        for step in range(256)
    ]
    previous = row[row.index((first, second)) - 1]
    assert 1 - chain_macs(*previous) / whole < amount


def test_the_note_says_what_was_reached(tmp_path: Path) -> None:
    after = StructuredPruning(amount=0.3, round_to=1, recovery="none").apply(
        model_of(chain()), context(tmp_path)
    )
    assert after.graph is not None
    removed = 1 - chain_macs(*list(widths(after.graph).values())[:2]) / chain_macs(32, 64)
    assert after.notes == (f"Removed {removed:.1%} of the multiply-accumulates (asked: at least 30%).",)


def test_an_amount_out_of_reach_is_told(tmp_path: Path) -> None:
    after = StructuredPruning(amount=0.95, recovery="none").apply(model_of(chain(16, 16)), context(tmp_path))
    assert after.graph is not None
    assert list(widths(after.graph).values()) == [8, 8, 3]
    removed = 1 - chain_macs(8, 8) / chain_macs(16, 16)
    assert after.notes == (f"Could remove only {removed:.1%} of the multiply-accumulates (asked: 95%).",)


def test_nothing_to_remove_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no layer can become narrower at round_to=8"):
        prune(model_of(chain(8, 8)), tmp_path)


def test_the_weakest_channels_go_and_zero_channels_are_not_missed(tmp_path: Path) -> None:
    """Half of each layer is silent, scattered; without it the network computes the same."""
    net = chain(16, 32).eval()
    silent = [torch.arange(0, 16, 2), torch.tensor([i for i in range(32) if i % 3])[:16]]
    with torch.no_grad():
        for layer, channels in zip((net[0], net[3]), silent, strict=True):
            layer.weight[channels] = 0  # type: ignore[operator]
        net[1].weight[silent[0]] = 0  # type: ignore[operator]
        net[3].bias[silent[1]] = 0  # type: ignore[operator]
        net[3].weight[:, silent[0]] = 0  # type: ignore[operator]
        net[7].weight[:, silent[1]] = 0  # type: ignore[operator]
    model = model_of(net)
    pruned = prune(model, tmp_path, amount=1 - chain_macs(8, 16) / chain_macs(16, 32), round_to=8)
    assert list(widths(pruned).values()) == [8, 16, 3]
    kept = [
        sorted(set(range(width)) - set(gone.tolist())) for width, gone in zip((16, 32), silent, strict=True)
    ]
    torch.testing.assert_close(pruned.get_parameter("0.weight"), net[0].weight[kept[0]])  # type: ignore[index]
    torch.testing.assert_close(pruned.get_parameter("3.weight"), net[3].weight[kept[1]][:, kept[0]])  # type: ignore[index]
    inputs = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(pruned.eval()(inputs), net(inputs))


def test_importance_counts_every_coupled_layer(tmp_path: Path) -> None:
    """A channel that is weak in the first layer and strong behind it stays."""
    net = chain(16, 16).eval()
    with torch.no_grad():
        net[0].weight.fill_(1.0)  # type: ignore[operator]
        net[3].weight.fill_(1.0)  # type: ignore[operator]
        net[0].weight[:8] = 0.9  # type: ignore[operator]
        net[3].weight[:, :8] = 3.0  # type: ignore[operator]
    pruned = prune(model_of(net), tmp_path, amount=0.4)
    assert torch.equal(pruned.get_parameter("0.weight"), torch.full((8, 1, 3, 3), 0.9))


@pytest.mark.parametrize("net", [Residual, Grouped, Dense, chain])
def test_coupled_layers_stay_valid(
    net: Callable[[], nn.Module], imported: Callable[[nn.Module], Candidate], tmp_path: Path
) -> None:
    for model in (model_of(net()), imported(net())):
        before = widths(model.graph)  # type: ignore[arg-type]
        pruned = prune(model, tmp_path, amount=0.4, round_to=4)
        after = widths(pruned)
        head = list(before)[-1]
        assert after[head] == before[head] == 3
        narrower = [name for name in before if after[name] < before[name]]
        assert len(narrower) >= len(before) // 2
        assert all(after[name] % 4 == 0 and after[name] > 0 for name in narrower)
        assert trains(pruned)


def test_groups_lose_their_channels_evenly(tmp_path: Path) -> None:
    pruned = prune(model_of(Grouped()), tmp_path, amount=0.4, round_to=4)
    depthwise, grouped = pruned.get_submodule("depthwise"), pruned.get_submodule("grouped")
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(grouped, nn.Conv2d)
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels < 32
    assert grouped.groups == 2
    assert grouped.weight.shape[1] * 2 == grouped.in_channels < 16


def test_a_transformer_keeps_its_attention_heads(
    imported: Callable[[nn.Module], Candidate], tmp_path: Path
) -> None:
    model = imported(Transformer())
    after = StructuredPruning(amount=0.1, recovery="none").apply(model, context(tmp_path))
    assert model.graph is not None
    assert after.graph is not None
    before, now = widths(model.graph), widths(after.graph)
    assert now["qkv"] == before["qkv"]
    assert now["up"] < before["up"]
    assert now["up"] % 8 == now["patches"] % 8 == 0
    assert after.notes[0].startswith("1 of 6 layers keep their width, e.g. qkv:")
    assert "attention" in after.notes[0]
    assert trains(after.graph)


@pytest.mark.parametrize("round_to", [1, 8, 12, 24])
def test_attention_is_never_cut_across_its_heads(
    imported: Callable[[nn.Module], Candidate], tmp_path: Path, round_to: int
) -> None:
    """At 24 the narrowed projection still divides into queries, keys and values, but into wrong ones."""
    pruned = prune(imported(Transformer()), tmp_path, amount=0.1, round_to=round_to)
    assert widths(pruned)["qkv"] == 96


def test_channels_that_are_followed_wrongly_are_noticed(
    imported: Callable[[nn.Module], Candidate], tmp_path: Path
) -> None:
    pruned = prune(imported(Shuffled()), tmp_path, amount=0.2)
    assert {name for name, width in widths(pruned).items() if width != 32} == {"b", "c", "fc"}


def test_an_architecture_that_cannot_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("no such group")

    monkeypatch.setattr(tp.DependencyGraph, "build_dependency", fail)
    with pytest.raises(
        StepFailed, match=r"cannot be followed \(KeyError: 'no such group'\)\. Leave this step"
    ):
        prune(model_of(chain()), tmp_path)


def test_the_given_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = model_of(chain())
    assert model.graph is not None
    before = {name: tensor.clone() for name, tensor in model.graph.state_dict().items()}
    prune(model, tmp_path)
    after = model.graph.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert list(widths(model.graph).values()) == [32, 64, 3]
    assert not any(module._forward_hooks for module in model.graph.modules())
    assert trains(model.graph)


def test_the_same_seed_gives_the_same_network(tmp_path: Path) -> None:
    one, other = (prune(model_of(net), tmp_path).state_dict() for net in [chain()] * 2)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_frozen_weights_are_pruned_too(tmp_path: Path) -> None:
    net = chain().requires_grad_(False)
    assert widths(prune(model_of(net), tmp_path))["0"] < 32


def test_refuses_a_model_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ONNX"):
        StructuredPruning().apply(candidate(None), context(tmp_path))


@pytest.mark.parametrize(
    "setting", [{"amount": 0}, {"amount": 0.96}, {"amount": float("nan")}, {"round_to": 0}, {"round_to": 65}]
)
def test_refuses_settings_out_of_bounds(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StructuredPruning(**setting)
