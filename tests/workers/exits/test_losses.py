"""The loss of the exits against Σ_m ω_m L(y, ŷ_m) written out in numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from workers.exits.losses import exit_loss, exit_weights

RANDOM = np.random.default_rng(5)
#: Logits of 2 exits and the end for 4 samples and 3 classes, a teacher's, and the labels.
Z, Q = 2 * RANDOM.normal(size=(4, 3, 3)), 2 * RANDOM.normal(size=(4, 3))
Y = np.array([2, 0, 1, 1])
ONE_HOT = np.eye(3)[Y]
OMEGA = (1 / 3, 2 / 3, 1.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    return float(-(targets * np.log(softmax(logits))).sum(axis=1).mean())


def binary_cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-logits))
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1).mean())


def tensor(array: np.ndarray) -> Tensor:
    return torch.tensor(array, dtype=torch.float64)


def teacher(inputs: Tensor) -> Tensor:
    """Answers with its input."""
    return inputs


def test_weights_rise_to_one() -> None:
    assert exit_weights(1) == [1]
    assert exit_weights(3) == pytest.approx(OMEGA)


def test_weights_may_be_alike() -> None:
    alike = exit_loss("cross_entropy", weighting="equal")(tensor(Z), torch.tensor(Y), tensor(Q))
    assert float(alike) == pytest.approx(sum(cross_entropy(ONE_HOT, Z[:, m]) for m in range(3)), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [("cross_entropy", cross_entropy), ("binary_cross_entropy", binary_cross_entropy)],
)
def test_on_labels_alone(name: str, by_hand) -> None:  # type: ignore[no-untyped-def]
    expected = sum(w * by_hand(ONE_HOT, Z[:, m]) for m, w in enumerate(OMEGA))
    got = exit_loss(name)(tensor(Z), torch.tensor(Y), tensor(Q))  # type: ignore[arg-type]
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_with_a_teacher_and_with_the_end_as_one() -> None:
    share, own, t = 0.3, 0.7, 2.5
    expected = 0.0
    for m, weight in enumerate(OMEGA):
        part = (1 - share) * cross_entropy(ONE_HOT, Z[:, m])
        part += share * t**2 * cross_entropy(softmax(Q / t), Z[:, m] / t)
        if m < 2:
            part += own * t**2 * cross_entropy(softmax(Z[:, 2] / t), Z[:, m] / t)
        expected += weight * part
    loss = exit_loss(
        "cross_entropy", teacher=teacher, distillation=share, self_distillation=own, temperature=t
    )
    assert float(loss(tensor(Z), torch.tensor(Y), tensor(Q))) == pytest.approx(expected, rel=1e-12)


def test_the_end_is_not_drawn_to_its_exits() -> None:
    gradients = []
    for own in (0.0, 5.0):
        logits = tensor(Z).requires_grad_()
        exit_loss("cross_entropy", self_distillation=own)(logits, torch.tensor(Y), tensor(Q)).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        gradients.append(logits.grad)
    assert torch.equal(gradients[0][:, 2], gradients[1][:, 2])
    assert not torch.equal(gradients[0][:, :2], gradients[1][:, :2])


def test_without_a_teacher_the_labels_have_it_all() -> None:
    logits, labels = tensor(Z), torch.tensor(Y)
    with_weight = exit_loss("cross_entropy", distillation=0.9)(logits, labels, tensor(Q))
    assert torch.equal(with_weight, exit_loss("cross_entropy")(logits, labels, tensor(Q)))
