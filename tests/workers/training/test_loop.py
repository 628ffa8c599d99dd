import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.arrays import ArrayData, context, easy_data, small_net
from workers.base import Progress
from workers.errors import StepFailed
from workers.training import batches, loop
from workers.training.batches import uses_mixed_precision
from workers.training.distillation import hinton
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.notes import course
from workers.training.settings import TrainingSettings

QUICK = TrainingSettings(epochs=2, batch_size=16, augmentation="none")


def accuracy(model: nn.Module, data: ArrayData) -> float:
    images, labels = data.splits["validation"]
    return float((model(images).argmax(1) == labels).float().mean())


def by_hand(
    model: nn.Module, data: ArrayData, settings: TrainingSettings, seed: int
) -> list[dict[str, Tensor]]:
    """Nesterov SGD, clipping, decay and schedule written out; the weights after every epoch."""
    steps = settings.epochs * math.ceil(len(data.labels("train")) / settings.batch_size)
    warm_up, step, after = max(1, round(steps / 20)), 0, []
    momenta = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    model.train()
    for epoch in range(1, settings.epochs + 1):
        shuffle = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
        torch.manual_seed(shuffle)
        for images, labels in data.batches("train", settings.batch_size, shuffle=shuffle):
            cosine = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
            rate = settings.learning_rate * (0.1 + 0.9 * step / warm_up if step < warm_up else cosine)
            gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
            with torch.no_grad():
                for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
                    g = g * min(1.0, 5.0 / norm) + (settings.weight_decay * p if p.ndim > 1 else 0.0)
                    momenta[name] = 0.9 * momenta[name] + g
                    p.sub_(rate * (g + 0.9 * momenta[name]))
            step += 1
        after.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return after


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["plain", "clipped"])
def test_equals_a_loop_by_hand(tmp_path: Path, scale: float) -> None:
    """With large weights in the classifier the gradients are far above the norm that is let through."""
    settings = TrainingSettings(epochs=3, batch_size=16, weight_decay=0.1, augmentation="none")
    data, nets = easy_data(), (small_net(), small_net())
    for net in nets:
        with torch.no_grad():
            net.get_parameter("8.weight").mul_(scale)
    expected = by_hand(nets[0], data, settings, seed=7)
    history = train(nets[1], context(tmp_path, data=data, seed=7), settings=settings, loss=cross_entropy())
    assert history.best_epoch > 0
    torch.testing.assert_close(nets[1].state_dict(), expected[history.best_epoch - 1], rtol=1e-4, atol=1e-5)


def test_the_accuracy_of_a_model_with_exits_is_that_of_its_end(tmp_path: Path) -> None:
    """And each exit has one of its own, by which `rank` can choose the epoch."""

    class Answers(nn.Module):
        """The first exit always says class 0, the second the opposite of the end."""

        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.net(inputs)
            first = torch.tensor([9.0, 0.0, 0.0]).expand_as(logits)
            return torch.stack([first, -logits, logits], dim=1)

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG001
        return F.cross_entropy(logits[:, 2], labels)

    data, net = easy_data(), Answers()
    settings = QUICK.model_copy(update={"epochs": 4})
    history = train(
        net, context(tmp_path, data=data), settings=settings, loss=loss, rank=lambda p: -p["epoch"]
    )
    assert history.best_epoch == 0
    images, labels = data.splits["validation"]
    with torch.no_grad():
        expected = (net(images).argmax(-1) == labels[:, None]).double().mean(0).tolist()
    point = history.points[0]
    assert [point["exit_1"], point["exit_2"], point["accuracy"]] == pytest.approx(expected)
    assert point["exit_1"] == pytest.approx(1 / 3)
    assert history.points[-1]["accuracy"] > point["accuracy"]


def test_same_seed_same_bits(tmp_path: Path) -> None:
    def weights(run: str, seed: int) -> Tensor:
        (tmp_path / run).mkdir()
        net = small_net()
        settings = QUICK.model_copy(update={"augmentation": "crop"})
        train(net, context(tmp_path / run, seed=seed), settings=settings, loss=cross_entropy())
        torch.rand(3)  # what others draw meanwhile must not matter
        return nn.utils.parameters_to_vector(net.parameters())

    first, again, other = weights("first", 1), weights("again", 1), weights("other", 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_leaves_the_random_numbers_of_others_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(small_net(), context(tmp_path), settings=QUICK, loss=cross_entropy())
    assert torch.equal(torch.get_rng_state(), before)


def test_ends_ready_for_use_with_the_best_epoch(tmp_path: Path) -> None:
    """The loss turns round after the second epoch, so the last one is not the best."""
    data, net, during = easy_data(), small_net(), list[bool]()
    settings = QUICK.model_copy(update={"epochs": 6, "learning_rate": 0.02})

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        during.append(net.training)
        return cross_entropy()(logits, labels, inputs) * (1 if len(during) <= 2 * 4 else -1)

    history = train(net, context(tmp_path, data=data), settings=settings, loss=loss)
    accuracies = [point["accuracy"] for point in history.points]
    assert accuracies[0] < max(accuracies) > accuracies[-1]
    assert history.best_accuracy == max(accuracies) == pytest.approx(accuracy(net, data))
    assert all(during)
    assert not any(module.training for module in net.modules())
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in net.state_dict().values())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_starting_weights_win_over_worse_epochs(tmp_path: Path) -> None:
    net = small_net()
    settings = QUICK.model_copy(update={"learning_rate": 0.05})
    train(net, context(tmp_path), settings=settings, loss=cross_entropy())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    history = train(net, context(tmp_path), settings=settings, loss=lambda z, y, _: -F.cross_entropy(z, y))
    assert history.best_epoch == 0
    assert history.best_accuracy == history.start_accuracy > max(p["accuracy"] for p in history.points[1:])
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_of_equal_epochs_the_last_is_kept(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"learning_rate": 1e-9})
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    history = train(net, context(tmp_path), settings=settings, loss=cross_entropy())
    assert len({point["accuracy"] for point in history.points}) == 1
    assert history.best_epoch == 2


@pytest.mark.parametrize(
    ("samples", "expected"), [(33, [16, 16]), (34, [16, 16, 2]), (32, [16, 16]), (2, [2])]
)
def test_last_batch_of_one_is_left_out(tmp_path: Path, samples: int, expected: list[int]) -> None:
    """BatchNorm over (N, C) refuses a single sample; the schedule must know of the missing batch."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3))
    sizes: list[int] = []

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        sizes.append(len(labels))
        return cross_entropy()(logits, labels, inputs)

    run = context(tmp_path, data=easy_data(train=samples))
    history = train(net, run, settings=QUICK, loss=loss)
    assert sizes == expected * 2
    assert history.points[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-9)


def test_one_training_sample_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="1 sample"):
        train(small_net(), context(tmp_path, data=easy_data(train=1)), settings=QUICK, loss=cross_entropy())


def test_divergence_names_epoch_and_batch(tmp_path: Path) -> None:
    calls = iter(range(100))

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        return cross_entropy()(logits, labels, inputs) * (math.nan if next(calls) == 4 + 2 else 1.0)

    with pytest.raises(StepFailed, match="epoch 2, batch 3: the loss is nan"):
        train(small_net(), context(tmp_path), settings=QUICK, loss=loss)


def test_a_teacher_is_a_closure(tmp_path: Path) -> None:
    """The labels are shuffled, so only what the teacher says of the inputs can have taught anything."""
    data, teacher, student = easy_data(train=128), small_net(), small_net()
    settings = QUICK.model_copy(update={"epochs": 6, "learning_rate": 0.05})
    train(teacher, context(tmp_path, data=data), settings=settings, loss=cross_entropy())
    images, labels = data.splits["train"]
    lies = ArrayData({**data.splits, "train": (images, labels[torch.randperm(128)])}, data.classes)

    def distil(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG001
        with torch.no_grad():
            target = teacher(inputs).softmax(1)
        return F.cross_entropy(logits, target)

    history = train(student, context(tmp_path, data=lies), settings=settings, loss=distil)
    assert history.start_accuracy < 0.6
    assert accuracy(student, data) > 0.9


class Viewing(nn.Module):
    """view() on a feature map works in the contiguous layout only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.linear = nn.Linear(256, 3)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(images))
        logits: Tensor = self.linear(features.view(len(images), -1))
        return logits


@pytest.mark.parametrize(("net", "channels_last"), [(small_net(), True), (Viewing(), False)])
def test_channels_last_where_the_graph_allows_it(tmp_path: Path, net: nn.Module, channels_last: bool) -> None:
    seen = set()

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        kernel = [parameter for parameter in net.parameters() if parameter.ndim == 4][1]
        seen.add(kernel.is_contiguous(memory_format=torch.channels_last))
        return cross_entropy()(logits, labels, inputs)

    train(net, context(tmp_path), settings=QUICK, loss=loss)
    assert seen == {channels_last}


def test_tells_batches_seldom_and_every_epoch(tmp_path: Path) -> None:
    told: list[Progress] = []
    settings = QUICK.model_copy(update={"batch_size": 2, "epochs": 3})
    began = time.monotonic()
    history = train(small_net(), context(tmp_path, tell=told.append), settings=settings, loss=cross_entropy())
    points = [progress.values for progress in told if progress.values]
    assert points == list(history.points)
    assert [set(point) for point in points[1:]] == [{"epoch", "loss", "accuracy", "learning_rate"}] * 3
    assert 1 <= len(told) - len(points) <= 1 + 10 * (time.monotonic() - began)
    shares = [progress.share for progress in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_every_batch_is_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that training pauses while a latency is measured; a turn that outlives a failure would stop all."""
    inside, turns, calls = [0], [0], list[int]()

    @contextmanager
    def turn() -> Iterator[None]:
        inside[0], turns[0] = inside[0] + 1, turns[0] + 1
        try:
            yield
        finally:
            inside[0] -= 1

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        assert inside == [1]
        calls.append(turns[0])
        return cross_entropy()(logits, labels, inputs) * (math.nan if len(calls) == 4 + 2 else 1)

    monkeypatch.setattr(batches, "training_turn", turn)
    monkeypatch.setattr(loop, "training_turn", turn)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", 0)  # looks at every loss at once
    with pytest.raises(StepFailed) as kept:
        train(small_net(), context(tmp_path), settings=QUICK, loss=loss)
    assert len(set(calls)) == len(calls) == 4 + 2
    assert inside == [0], f"still held while {kept.value} is"


def share_of_itself(blended: Tensor, images: Tensor) -> float:
    """The share at which what is left of every picture lies nearest to one of the pictures."""

    def misfit(share: float) -> float:
        left = (blended - share * images) / (1 - share)
        return float(torch.cdist(left.flatten(1), images.flatten(1)).amin(1).sum())

    shares = [step / 1000 for step in range(1000)]
    return min(shares, key=misfit)


def test_mixup_blends_pictures_and_losses_alike(tmp_path: Path) -> None:
    """Each batch is one share of itself and the rest of partners, which the labels of both calls tell."""
    data = easy_data()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        calls.append((logits, labels, inputs))
        return logits.sum() * 0 + (2.0 if len(calls) % 2 else 5.0)

    history = train(
        net,
        context(tmp_path, data=data, seed=3),
        settings=QUICK.model_copy(update={"mixup": 0.5, "epochs": 1}),
        loss=loss,
    )
    seed = int(np.random.SeedSequence([3, 1]).generate_state(1)[0])
    plain = list(data.batches("train", 16, shuffle=seed))
    shares = []
    for (images, labels), own, theirs in zip(plain, calls[::2], calls[1::2], strict=True):
        assert own[2] is theirs[2]
        assert torch.equal(own[1], labels)
        share = share_of_itself(own[2], images)
        partners = (own[2] - share * images) / (1 - share)
        distances = torch.cdist(partners.flatten(1), images.flatten(1))
        assert distances.amin(1).max() < 0.1  # of pictures that are 8 or more apart
        assert torch.equal(labels[distances.argmin(1)], theirs[1])
        shares.append(share)
    assert len({round(share, 4) for share in shares}) == 4
    assert history.points[1]["loss"] == pytest.approx(
        np.mean([2 * s + 5 * (1 - s) for s in shares]), abs=1e-2
    )


def test_patience_ends_the_training(tmp_path: Path) -> None:
    """The second epoch is the best: from then on the loss drives the accuracy down."""
    calls = iter(range(1000))
    settings = QUICK.model_copy(update={"epochs": 20, "patience": 3, "learning_rate": 0.02})

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        return cross_entropy()(logits, labels, inputs) * (1 if next(calls) < 2 * 4 else -1)

    history = train(small_net(), context(tmp_path), settings=settings, loss=loss)
    assert len(history.points) == 1 + history.best_epoch + 3
    assert history.best_epoch in (1, 2, 3)
    note = course(history, settings, torch.device("cpu"))
    assert f"kept epoch {history.best_epoch} of {history.best_epoch + 3}" in note
    assert "ended before epoch 20: 3 epochs" in note


def test_as_good_an_epoch_as_before_does_not_prolong_the_training(tmp_path: Path) -> None:
    """A loss of nothing: every epoch is as good as the start; the last of them is kept all the same."""
    settings = QUICK.model_copy(update={"epochs": 20, "patience": 3, "weight_decay": 0})
    history = train(still(), context(tmp_path), settings=settings, loss=lambda logits, *_: 0 * logits.sum())
    assert [point["epoch"] for point in history.points] == [0, 1, 2, 3]
    assert history.best_epoch == 3


def still() -> nn.Module:
    """No statistics that move without a gradient."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize(("clip", "expected"), [(0.5, 0.5), (0, 8.0)])
def test_gradient_clip_bounds_the_update(tmp_path: Path, clip: float, expected: float) -> None:
    """One update of plain length: the gradient is 8 for one weight and 0 for all others; 0 clips nothing."""
    linear = nn.Linear(64, 3, bias=False)
    net = nn.Sequential(nn.Flatten(), linear)
    before = linear.weight.detach().clone()
    settings = QUICK.model_copy(
        update={"epochs": 1, "gradient_clip": clip, "weight_decay": 0, "warm_up": 0, "learning_rate": 0.01}
    )
    run = context(tmp_path, data=easy_data(train=16))
    history = train(net, run, settings=settings, loss=lambda *_: 8 * linear.weight[0, 0])
    assert history.best_epoch == 1
    change = float((before - linear.weight.detach())[0, 0])
    assert change == pytest.approx(0.01 * expected * 1.9, rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", [{}, {"mixup": 0.2}, {"mixed_precision": "off"}])
def test_a_gpu_computes_in_bfloat16_and_learns(tmp_path: Path, changes: dict[str, Any]) -> None:
    data, net, kinds = easy_data(), small_net(), set[torch.dtype]()
    settings = TrainingSettings(**{"epochs": 6, "batch_size": 16, "learning_rate": 0.02, **changes})
    run = replace(context(tmp_path, data=data), device=torch.device("cuda"))
    net.get_submodule("8").register_forward_hook(lambda _, __, out: kinds.add(out.dtype))
    loss = hinton(net, temperature=2.0, weight=0.1)  # the teacher follows the model to the device
    seen: list[Tensor] = []

    def watched(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        seen.append(logits)
        return loss(logits, labels, inputs)

    train(net, run, settings=settings, loss=watched)
    assert {logits.dtype for logits in seen} == {torch.float32}
    assert {logits.device.type for logits in seen} == {"cuda"}
    half = uses_mixed_precision(settings, run.device)
    assert (torch.bfloat16 in kinds) == half
    assert half == ("mixed_precision" not in changes and torch.cuda.get_device_capability() >= (8, 0))
    assert accuracy(net, data) > 0.9
