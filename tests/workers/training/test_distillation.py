"""Distillation losses against the equations of their papers, written out in numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.arrays import small_net
from workers.training.distillation import hinton

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
