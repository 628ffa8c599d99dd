"""Distillation losses against the equations of their papers, written out in numpy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.arrays import context, easy_data, small_net
from workers.base import Context
from workers.training.distillation import Answers, accuracy_of, distil, hinton, learn_from
from workers.training.loop import train
from workers.training.settings import TrainingSettings
from workers.training.soft_losses import SOFT_LOSSES, decoupled, dist, soft_cross_entropy, standardised

RANDOM = np.random.default_rng(3)
#: Student and teacher logits of 6 samples and 4 classes, and the labels.
P, Q = 3 * RANDOM.normal(size=(6, 4)), 3 * RANDOM.normal(size=(6, 4))
Y = np.array([0, 3, 1, 1, 2, 0])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def cross_entropy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-(targets * np.log(probabilities)).sum(axis=1).mean())


def tensor(array: np.ndarray) -> Tensor:
    return torch.tensor(array, dtype=torch.float64)


class Says(nn.Module):
    """Answers with its input, so that the inputs are the teacher's logits."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.5, 0.0), (3.0, 1.0)])
def test_hinton_equals_the_formula(temperature: float, weight: float) -> None:
    soft = cross_entropy(softmax(Q / temperature), softmax(P / temperature))
    expected = (1 - weight) * cross_entropy(np.eye(4)[Y], softmax(P)) + weight * temperature**2 * soft
    loss = hinton(Says(), temperature=temperature, weight=weight)
    got = loss(tensor(P), torch.tensor(Y), tensor(Q)[:, :, None, None])
    assert float(got) == pytest.approx(expected, rel=1e-10)


def test_a_teacher_is_asked_in_eval_mode_and_stays_as_it_is() -> None:
    teacher = small_net().train()
    images = torch.randn(5, 1, 8, 8)
    student = torch.randn(5, 3, requires_grad=True)
    loss = hinton(teacher, temperature=2.0, weight=1.0)(student, torch.tensor([0, 1, 2, 0, 1]), images)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert teacher.training
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    untouched = small_net().state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in teacher.state_dict().items())
    with torch.no_grad():
        answers = small_net().eval()(images).numpy()
    expected = 4 * cross_entropy(softmax(answers / 2), softmax(student.detach().numpy() / 2))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def kl(q: np.ndarray, p: np.ndarray) -> float:
    return float((q * np.log(q / p)).sum(axis=-1).mean())


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def z_scores(logits: np.ndarray) -> np.ndarray:
    return np.stack([(row - row.mean()) / np.sqrt(np.mean((row - row.mean()) ** 2)) for row in logits])


def tckd_and_nckd(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per sample, from probabilities: the two divergences of DKD's equation 5."""
    target, others = [], []
    for student, teacher, label in zip(p, q, Y, strict=True):
        s, t = student[label], teacher[label]
        target.append(t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s)))
        hats, hatt = np.delete(student, label) / (1 - s), np.delete(teacher, label) / (1 - t)
        others.append((hatt * np.log(hatt / hats)).sum())
    return np.array(target), np.array(others)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_standardised_equals_the_algorithm(temperature: float) -> None:
    expected = kl(softmax(z_scores(Q) / temperature), softmax(z_scores(P) / temperature)) * temperature**2
    got = standardised(temperature)(tensor(P), tensor(Q), torch.tensor(Y))
    assert float(got) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_equals_its_equations(temperature: float) -> None:
    target, others = tckd_and_nckd(softmax(P / temperature), softmax(Q / temperature))
    expected = temperature**2 * float((1.5 * target + 6 * others).mean())
    got = decoupled(temperature, target=1.5, others=6)(tensor(P), tensor(Q), torch.tensor(Y))
    assert float(got) == pytest.approx(expected, rel=1e-6)
    paper = temperature**2 * float((target + 8 * others).mean())
    assert float(decoupled(temperature)(tensor(P), tensor(Q), torch.tensor(Y))) == pytest.approx(paper)


def test_decoupled_adds_up_to_hintons_divergence() -> None:
    """Equation 6: KL = TCKD + (1 - q_label) NCKD, sample by sample."""
    target, others = tckd_and_nckd(softmax(P), softmax(Q))
    rest = 1 - softmax(Q)[np.arange(6), Y]
    assert float((target + rest * others).mean()) == pytest.approx(kl(softmax(Q), softmax(P)))
    divergence = soft_cross_entropy(1.0)(tensor(P), tensor(Q), torch.tensor(Y)) - cross_entropy(
        softmax(Q), softmax(Q)
    )
    assert float(divergence) == pytest.approx(float((target + rest * others).mean()))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_equals_its_equations(temperature: float) -> None:
    p, q = softmax(P / temperature), softmax(Q / temperature)
    between = np.mean([1 - pearson(a, b) for a, b in zip(p, q, strict=True)])
    within = np.mean([1 - pearson(a, b) for a, b in zip(p.T, q.T, strict=True)])
    got = dist(temperature)(tensor(P), tensor(Q), torch.tensor(Y))
    assert float(got) == pytest.approx(temperature**2 * (between + within), rel=1e-6)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(name: str) -> None:
    """No gradient at equal logits, and a finite one where all logits of the student are alike."""
    for values in (Q, np.zeros((6, 4))):
        student = tensor(values).requires_grad_()
        SOFT_LOSSES[name](4.0)(student, tensor(values), torch.tensor(Y)).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-6, rtol=0)
    flat = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    SOFT_LOSSES[name](4.0)(flat, tensor(Q), torch.tensor(Y)).backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_standardised_asks_for_no_scale_and_no_shift() -> None:
    loss = standardised(2.0)(tensor(5 * Q - 3), tensor(Q), torch.tensor(Y))
    assert float(loss) == pytest.approx(0, abs=1e-9)


class Counts(nn.Module):
    """A network that counts how often it saw a sample, in eval mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, list[Tensor]()

    def __deepcopy__(self, memo: dict[int, object]) -> "Counts":
        return self  # a copy would count elsewhere

    def forward(self, inputs: Tensor) -> Tensor:
        if not torch.is_inference_mode_enabled():  # the memory format is tried there
            self.seen.append(inputs)
        logits: Tensor = self.network(inputs)
        return logits


def learned(scratch: Path, teacher: nn.Module, settings: TrainingSettings, run: Context) -> nn.Module:
    """A student with the seed of `small_net`, taught with labels that mean nothing."""
    student = small_net()
    for name in ("answers", "student"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    ask, data = learn_from(teacher, replace(run, scratch=scratch / "answers"), settings)
    train(
        student,
        replace(run, data=data, scratch=scratch / "student"),
        settings=settings,
        loss=distil(ask, soft_cross_entropy(2.0), 0.7),
    )
    return student


@pytest.mark.parametrize("samples", [64, 33])
def test_the_teacher_is_asked_once_per_sample_and_teaches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    settings = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.02, augmentation="none")
    data = easy_data(train=samples)
    run = context(tmp_path, data=data)
    once = Counts(small_net())
    student = learned(tmp_path / "kept", once, settings, run)
    torch.testing.assert_close(torch.cat(once.seen), data.splits["train"][0], rtol=0, atol=0)

    monkeypatch.setattr("workers.training.distillation.MAX_ANSWERS_BYTES", 0)
    always = Counts(small_net())
    other = learned(tmp_path / "asked", always, settings, run)
    assert sum(map(len, always.seen)) == 3 * (samples - samples % 16 % 2)  # a last batch of one is left out
    torch.testing.assert_close(student.state_dict(), other.state_dict(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(student.get_parameter("8.weight"), small_net().get_parameter("8.weight"))


@pytest.mark.parametrize("changes", [{"augmentation": "crop"}, {"mixup": 0.2}])
def test_a_teacher_sees_what_the_student_sees(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Changed pictures are new in every epoch; blended ones are shown once, though they have two labels."""
    settings = TrainingSettings(**{"epochs": 3, "batch_size": 16, "augmentation": "none", **changes})
    teacher = Counts(small_net())
    learned(tmp_path, teacher, settings, context(tmp_path))
    assert [len(inputs) for inputs in teacher.seen] == [16] * 4 * 3
    assert len({inputs.sum().item() for inputs in teacher.seen}) == 4 * 3


def test_kept_answers_survive_a_kill_and_are_not_asked_for_again(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=2, batch_size=16, augmentation="none")
    run, teacher = context(tmp_path), Counts(small_net())
    first = learn_from(teacher, run, settings)[0]
    asked = len(teacher.seen)
    again = learn_from(teacher, run, settings)[0]
    assert asked == 4 == len(teacher.seen)
    assert isinstance(first, Answers)
    assert isinstance(again, Answers)
    assert torch.equal(first.logits, again.logits)
    with torch.no_grad():
        teacher.network.get_parameter("8.bias").add_(1)
    learn_from(teacher, run, settings)
    assert len(teacher.seen) == 8


def test_accuracy_is_that_of_the_validation_split(tmp_path: Path) -> None:
    data, net = easy_data(), small_net().train()
    images, labels = data.splits["validation"]
    got = accuracy_of(net, context(tmp_path, data=data), TrainingSettings(batch_size=7))
    assert net.training
    assert got == (net.eval()(images).argmax(1) == labels).double().mean()
