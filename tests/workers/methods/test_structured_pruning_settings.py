"""Each setting of structured pruning, against what is known without it: formulas, weights written by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from tests.support.arrays import ArrayData, candidate, context, easy_data
from tests.workers.pruning.networks import chain, chain_macs, graph_of, model_of, widths
from workers.base import Candidate, Progress, Split
from workers.errors import StepFailed
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.graph.resnets import CifarResNet
from workers.importance import IMPORTANCES
from workers.methods.structured_pruning import StructuredPruning
from workers.pruning import costs, following
from workers.training.optimizers import make_optimizer
from workers.training.settings import TrainingSettings


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def prune(net: nn.Module, folder: Path, **settings: object) -> Candidate:
    given = {"recovery": "none", "recalibrate": False, **settings}
    after = StructuredPruning(**given).apply(model_of(net), context(folder))
    assert after.graph is not None
    return after


def resnet() -> CifarResNet:
    return CifarResNet(14, num_classes=3, in_channels=1, width=8)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_importance_can_be_pruned_by(importance: str, tmp_path: Path) -> None:
    after = prune(chain(), tmp_path, importance=importance, amount=0.3)
    first, second, _ = widths(after.graph).values()  # type: ignore[arg-type]
    assert 1 - chain_macs(first, second) / chain_macs(32, 64) >= 0.3
    # Only the first layer has BatchNorm.
    assert (second == 64) == (importance == "batchnorm_scale")


def test_the_amount_can_be_of_the_parameters(tmp_path: Path) -> None:
    def parameters(first: int, second: int) -> int:
        return 9 * first + 2 * first + 9 * first * second + second + 3 * second + 3

    after = prune(chain(), tmp_path, amount_of="parameters", amount=0.6)
    first, second, _ = widths(after.graph).values()  # type: ignore[arg-type]
    removed = 1 - parameters(first, second) / parameters(32, 64)
    assert removed >= 0.6
    assert after.notes == (f"Removed {removed:.1%} of the parameters (asked: at least 60%).",)


def test_latency_is_measured_on_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the real runtime; wide nets, so that the layers and not the calls take the time."""
    monkeypatch.setattr(costs, "LATENCY_SECONDS", 0.1)
    cost = costs.cost_of("latency", model_of(chain(256, 256)), context(tmp_path))
    assert cost.removed(graph_of(chain(64, 64))) > 0.5
    assert StructuredPruning(amount_of="latency").depends_on_target
    assert not StructuredPruning().depends_on_target


@pytest.mark.slow
def test_the_amount_can_be_of_the_latency(tmp_path: Path) -> None:
    after = prune(chain(256, 256), tmp_path, amount_of="latency", amount=0.5)
    assert 8 < widths(after.graph)["3"] < 256  # type: ignore[arg-type]
    assert after.notes[-1].startswith("Removed ")
    assert "% of the latency, as measured during the search (asked: at least 50%)" in after.notes[-1]


def test_global_takes_from_the_layer_that_needs_least(tmp_path: Path) -> None:
    """Half of the second layer's channels are nearly silent, in and out; all of the first's are alike."""
    net = chain(32, 64).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
        net[3].weight[::2] = 1e-3  # type: ignore[operator]
        net[7].weight[:, ::2] = 1e-3  # type: ignore[operator]
    scopes = {
        scope: list(widths(prune(net, tmp_path, scope=scope, amount=0.4).graph).values())  # type: ignore[arg-type]
        for scope in ("global", "uniform")
    }
    assert scopes == {"global": [32, 32, 3], "uniform": [24, 48, 3]}


def test_layers_to_keep_stay_as_they_are(tmp_path: Path) -> None:
    net = resnet()
    after = prune(net, tmp_path, keep="layer1, layer2.*.conv1 ,fc", amount=0.3)
    before, now = widths(graph_of(net)), widths(after.graph)  # type: ignore[arg-type]
    assert after.graph is not None
    for name, weight in net.named_parameters():
        if name.startswith(("layer1", "layer2.0.conv1", "layer2.1.conv1", "fc")) and weight.dim() > 1:
            assert torch.equal(after.graph.get_parameter(name), weight), name
    assert now["layer3.0.conv1"] < before["layer3.0.conv1"]


def test_an_unknown_layer_to_keep_is_refused_with_similar_names(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        prune(resnet(), tmp_path, keep="layer1.0.conf1")
    assert caught.value.where == "structured_pruning: keep"
    assert "'layer1.0.conf1'" in caught.value.what
    assert "layer1.0.conv1" in caught.value.fix


def test_everything_kept_leaves_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="every layer is to be kept"):
        prune(chain(), tmp_path, keep="*")


def test_amounts_of_single_layers_alone(tmp_path: Path) -> None:
    """Widths 32 and 64: a quarter of one goes, nothing of the other, whatever the rounding of widths."""
    after = prune(chain(), tmp_path, amount=0, layer_amounts={"0": 0.25})
    first, second, _ = widths(after.graph).values()  # type: ignore[arg-type]
    assert (first, second) == (24, 64)
    odd = prune(chain(30, 50), tmp_path, amount=0, layer_amounts={"3": 0.5}, round_to=8)
    assert [*widths(odd.graph).values()][:2] == [30, 24]  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_a_layers_own_amount_holds_beside_that_of_all(scope: str, tmp_path: Path) -> None:
    after = prune(chain(), tmp_path, amount=0.5, layer_amounts={"3": 0}, scope=scope)
    first, second, _ = widths(after.graph).values()  # type: ignore[arg-type]
    assert second == 64
    assert 1 - chain_macs(first, second) / chain_macs(32, 64) >= 0.5


def test_amounts_of_layers_are_reached_over_rounds(tmp_path: Path) -> None:
    after = prune(chain(), tmp_path, amount=0, layer_amounts={"3": 0.75}, rounds=2)
    assert [*widths(after.graph).values()][:2] == [32, 16]  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [1, 5, 20])
def test_amounts_of_layers_do_not_depend_on_the_rounds(rounds: int, tmp_path: Path) -> None:
    """Half of 64 channels is 32, though a round of 20 asks for less than a step of 8."""
    model = model_of(chain())
    assert model.graph is not None
    before = {name: tensor.clone() for name, tensor in model.graph.state_dict().items()}
    settings = StructuredPruning.model_validate(
        {"amount": 0, "layer_amounts": {"3": 0.5}, "rounds": rounds, "recovery": "none"}
    )
    after = settings.apply(model, context(tmp_path))
    assert [*widths(after.graph).values()][:2] == [32, 32]  # type: ignore[arg-type]
    unchanged = model.graph.state_dict()  # also by rounds in which nothing went
    assert all(torch.equal(tensor, unchanged[name]) for name, tensor in before.items())


def test_layer_amounts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"'7' is no layer .* narrower.*Similar names are 0, 3"):
        prune(chain(), tmp_path, layer_amounts={"7": 0.5})  # gives the logits
    net = resnet()
    with pytest.raises(StepFailed, match="must stay as wide as"):
        prune(net, tmp_path, layer_amounts={"conv1": 0.5, "layer1.0.conv2": 0.25})
    with pytest.raises(ValueError, match="amount 0 removes nothing"):
        StructuredPruning(amount=0)


def test_whole_blocks_go_first_and_channels_make_up_the_rest(tmp_path: Path) -> None:
    after = prune(resnet(), tmp_path, remove_blocks=2, amount=0.7)
    assert after.graph is not None
    gone, reached = after.notes
    removed = gone.removeprefix("Residual blocks removed: ").removesuffix(".").split(", ")
    assert len(removed) == 2
    modules = dict(after.graph.named_modules())
    assert not any(f"{block}.conv1" in modules for block in removed)
    assert reached.startswith("Removed 7")
    assert after.graph(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_enough_blocks_leave_the_channels_alone(tmp_path: Path) -> None:
    after = prune(resnet(), tmp_path, remove_blocks=1, amount=0.05)
    assert set(widths(after.graph).values()) == {3, 8, 16, 32}  # type: ignore[arg-type]


def test_a_block_with_a_layer_of_its_own_amount_stays(tmp_path: Path) -> None:
    every = {f"layer{stage}.{block}.conv1": 0.5 for stage in (1, 2, 3) for block in (0, 1)}
    after = prune(resnet(), tmp_path, remove_blocks=6, amount=0.9, layer_amounts=every, round_to=4)
    assert after.notes[0] == "No residual block could be removed."


def test_blocks_go_too_where_only_single_layers_lose_channels(tmp_path: Path) -> None:
    single = {"layer1.0.conv1": 0.5}
    after = prune(resnet(), tmp_path, remove_blocks=1, amount=0, layer_amounts=single, round_to=4)
    assert after.graph is not None
    assert after.notes[0].startswith("Residual blocks removed: layer")
    assert len(widths(after.graph)) < len(widths(graph_of(resnet())))


def test_frozen_weights_recover_after_blocks_alone(tmp_path: Path) -> None:
    net = resnet().requires_grad_(False)
    settings = StructuredPruning(remove_blocks=1, amount=0.05, recovery_epochs=1)
    after = settings.apply(model_of(net), context(tmp_path))
    assert after.graph is not None
    assert set(widths(after.graph).values()) == {3, 8, 16, 32}
    assert "Recovery by distillation" in after.notes[-2]


@pytest.mark.parametrize(("settings", "kind"), [({}, SGD), ({"recovery_optimizer": "adamw"}, AdamW)])
def test_the_optimiser_of_the_recovery_is_chosen(
    settings: dict[str, Any], kind: type[Optimizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Optimizer] = []

    def noted(model: nn.Module, training: TrainingSettings) -> Optimizer:
        made.append(make_optimizer(model, training))
        return made[-1]

    monkeypatch.setattr("workers.training.state.make_optimizer", noted)
    prune(chain(), tmp_path, recovery="fine_tuning", recovery_epochs=1, **settings)
    assert [type(optimizer) for optimizer in made] == [kind]


def test_rounds_draw_one_curve_and_shuffle_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    real = ArrayData.batches

    def noted(self: ArrayData, split: Split, *args: Any, shuffle: int | None = None, **kwargs: Any) -> Any:
        seeds.append(shuffle)
        return real(self, split, *args, shuffle=shuffle, **kwargs)

    monkeypatch.setattr(ArrayData, "batches", noted)
    told: list[Progress] = []
    settings = StructuredPruning(amount=0.75, rounds=3, recovery_epochs=2, recalibrate=False)
    settings.apply(model_of(chain()), context(tmp_path, tell=told.append))
    assert [progress.values["epoch"] for progress in told if progress.values] == list(range(7))
    texts = [progress.text for progress in told if ": Epoch 2 of 2: " in progress.text]
    assert [text.partition(":")[0] for text in texts] == ["Round 1 of 3", "Round 2 of 3", "Round 3 of 3"]
    drawn = [seed for seed in seeds if seed is not None]
    assert len(set(drawn)) == len(drawn) == 6


def test_a_round_in_which_nothing_goes_leaves_no_gap_in_the_curve(tmp_path: Path) -> None:
    told: list[Progress] = []
    settings = StructuredPruning.model_validate(
        {"amount": 0, "layer_amounts": {"3": 0.5}, "rounds": 20, "recovery_epochs": 1}
    )
    after = settings.apply(model_of(chain()), context(tmp_path, tell=told.append))
    recovered = sum("Recovery" in note for note in after.notes)
    assert recovered < 20
    assert [progress.values["epoch"] for progress in told if progress.values] == list(range(recovered + 1))


def test_rounds_reach_the_amount_of_the_unpruned_model(tmp_path: Path) -> None:
    """1 - (1 - 0.75)^(1/2) is one half: the first of two rounds."""
    settings = StructuredPruning(amount=0.75, rounds=2, round_to=1, recovery_epochs=1)
    after = settings.apply(model_of(chain()), context(tmp_path))
    assert after.graph is not None
    removed = 1 - chain_macs(*list(widths(after.graph).values())[:2]) / chain_macs(32, 64)
    assert 0.75 <= removed < 0.78
    assert [note.split(" by ")[0] for note in after.notes[:2]] == ["Recovery 1", "Recovery 2"]
    assert {path.name for path in tmp_path.iterdir()} == {"round-1", "round-2"}
    half = StructuredPruning(amount=0.5, round_to=1, recovery="none").apply(
        model_of(chain()), context(tmp_path)
    )
    first = list(widths(half.graph).values())  # type: ignore[arg-type]
    assert all(now <= before for now, before in zip(widths(after.graph).values(), first, strict=True))


def test_distillation_recovers_what_the_unpruned_model_says(tmp_path: Path) -> None:
    """Labels by chance teach nothing, and the teacher everything."""
    splits = dict(easy_data(train=192).splits)
    images, labels = splits["train"]
    net = trained(chain(16, 16), images, labels)
    splits["train"] = images, labels[torch.randperm(len(labels))]
    accuracy = {}
    for recovery in ("fine_tuning", "distillation"):
        folder = tmp_path / recovery
        folder.mkdir()
        settings = StructuredPruning.model_validate(
            {"importance": "random", "recovery": recovery, "recovery_learning_rate": 0.2}
        )
        after = settings.apply(model_of(net), context(folder, data=ArrayData(splits, ("a", "b", "c"))))
        assert after.graph is not None
        inputs, right = splits["validation"]
        accuracy[recovery] = float((after.graph(inputs).argmax(1) == right).float().mean())
    assert accuracy["distillation"] > accuracy["fine_tuning"] + 0.05


def trained(net: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval()


def test_batchnorm_statistics_are_those_of_the_narrowed_network(tmp_path: Path) -> None:
    """Of the first BatchNorm: mean and variance of its inputs over the training samples."""
    net = chain(16, 16)
    after = prune(net, tmp_path, amount=0.3, recalibrate=True)
    assert after.graph is not None
    images, _ = easy_data().splits["train"]
    values: Tensor = after.graph.get_submodule("0")(images)
    norm = after.graph.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, values.var((0, 2, 3)), rtol=1e-2, atol=1e-4)
    assert not after.graph.training


class Odd(nn.Module):
    """What people write: GroupNorm, a depthwise residual, PReLU and, behind it, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 24, 3, padding=1), nn.GroupNorm(4, 24)
        self.depthwise, self.b, self.act = (
            nn.Conv2d(24, 24, 5, padding=2, groups=24),
            nn.Conv2d(24, 48, 1),
            nn.PReLU(48),
        )
        self.attention = nn.MultiheadAttention(48, 4, batch_first=True)
        self.layer, self.fc = nn.LayerNorm(48), nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm(self.a(x)))
        x = self.act(self.b(nn.functional.avg_pool2d(x + self.depthwise(x), 2)))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.layer(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])
        logits: Tensor = self.fc(tokens.mean(1))
        return logits


@pytest.mark.parametrize("many", [following.MANY, 1])
def test_what_can_be_followed_is_narrowed_beside_attention(
    many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group at a time, or one of all whose names are alike; here no two are."""
    monkeypatch.setattr(following, "MANY", many)
    spec = candidate(None).spec
    write_archive(trace(Odd().eval(), spec.preprocessing), tmp_path / "net.pt2")
    model = open_model(tmp_path / "net.pt2", spec)
    settings = StructuredPruning(amount=0.1, round_to=4, recovery="none")
    after = settings.apply(model, context(tmp_path))
    assert model.graph is not None
    assert after.graph is not None
    before, now = widths(model.graph), widths(after.graph)
    assert {name for name in before if now[name] < before[name]} == {"a", "depthwise"}
    assert after.notes[0].startswith("3 of 6 layers keep their width, e.g. b:")
    assert "(it has attention)" in after.notes[0]
    assert after.graph(torch.randn(3, 1, 8, 8)).shape == (3, 3)
