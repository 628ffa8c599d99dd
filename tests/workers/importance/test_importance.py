"""Each importance against its formula by hand, the second derivative against the Hessian and backpack."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from backpack import backpack, extend
from backpack.extensions import DiagGGNExact
from pydantic import TypeAdapter
from torch import Tensor, fx, nn
from torch.func import functional_call, hessian

from tests.support.arrays import ArrayData, context, easy_data, small_net
from workers.base import Context
from workers.errors import StepFailed
from workers.importance import IMPORTANCES, ImportanceId
from workers.importance import second_derivative as module
from workers.importance.batchnorm_scale import BatchNormScale
from workers.importance.l1 import L1
from workers.importance.l2 import L2
from workers.importance.random import Random
from workers.importance.second_derivative import SecondDerivative
from workers.importance.taylor import Taylor


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def graph_of(net: nn.Module) -> fx.GraphModule:
    return fx.symbolic_trace(net).eval()


def mlp(classes: int = 3) -> fx.GraphModule:
    return graph_of(
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, classes)
        )
    )


def convolutions() -> nn.Sequential:
    """Strides, padding, dilation, groups, a depthwise layer and BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 3),
    ).eval()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.relus = nn.ModuleList([nn.ReLU() for _ in range(3)])  # backpack takes none twice
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relus[0](self.stem(x))
        x = self.relus[2](x + self.b(self.relus[1](self.norm(self.a(x)))))
        logits: Tensor = self.fc(self.flatten(self.pool(x)))
        return logits


def calibration(context: Context) -> tuple[Tensor, Tensor]:
    assert isinstance(context.data, ArrayData)
    return context.data.splits["calibration"]


def exact(graph: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """½ w² times the diagonal of the full Hessian, by differentiating twice."""
    weights = {name: p.detach() for name, p in graph.named_parameters() if p.dim() > 1}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(graph, weights, (inputs,)), labels)

    whole = hessian(loss)(weights)
    return {
        name: 0.5 * w.square() * whole[name][name].reshape(w.numel(), -1).diagonal().view(w.shape)
        for name, w in weights.items()
    }


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # inside torch.func.hessian
def test_second_derivative_is_the_hessian_diagonal_of_an_mlp(tmp_path: Path) -> None:
    images, labels = calibration(context(tmp_path))
    here = context(tmp_path, data=ArrayData({"calibration": (images.double(), labels)}, ("a", "b", "c")))
    graph = mlp().double()
    scores = SecondDerivative().scores(graph, here)
    expected = exact(graph, images.double(), labels)
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        torch.testing.assert_close(score, expected[name].float(), rtol=1e-5, atol=1e-12)
        assert score.max() > 0


@pytest.mark.parametrize("net", [convolutions, Residual])
def test_second_derivative_equals_backpack(net: type[nn.Module], tmp_path: Path) -> None:
    """Also with residual connections, where every value is used twice."""
    plain = net().eval()
    here = context(tmp_path)
    inputs, labels = calibration(here)
    other = extend(copy.deepcopy(plain), use_converter=True)
    loss = extend(nn.CrossEntropyLoss())(other(inputs.clone().requires_grad_()), labels)
    with backpack(DiagGGNExact()):
        loss.backward()
    expected = {
        name: weight.detach().square() * weight.diag_ggn_exact / 2
        for name, weight in other.named_parameters()
        if weight.dim() > 1
    }
    scores = SecondDerivative().scores(graph_of(plain), here)
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        torch.testing.assert_close(score, expected[name], rtol=1e-3, atol=1e-9)


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.fc = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.once(x.flatten(1)))
        logits: Tensor = self.fc(torch.relu(self.twice(torch.relu(self.twice(x)))))
        return logits


class TokensFirst(nn.Module):
    """Rows of one sample lie apart: (tokens, N, features), then (tokens * N, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.relu(self.a(x.squeeze(1).transpose(0, 1)))
        rows = torch.relu(self.b(tokens.reshape(-1, 6)))
        logits: Tensor = self.fc(rows.reshape(8, -1, 6).mean(0))
        return logits


@pytest.mark.parametrize("net", [CalledTwice, TokensFirst])
def test_second_derivative_sums_the_places_of_a_sample_before_squaring(
    net: type[nn.Module], tmp_path: Path
) -> None:
    """Against one backward pass per sample and class."""
    graph, here = graph_of(net()), context(tmp_path)
    inputs, _ = calibration(here)
    names, weights = zip(*[(n, p) for n, p in graph.named_parameters() if p.dim() > 1], strict=True)
    sums = [torch.zeros_like(weight) for weight in weights]
    for sample in inputs.unsqueeze(1):
        logits = graph(sample)[0]
        shares = logits.softmax(0).detach()
        for index, share in enumerate(shares):
            column = share.sqrt() * (F.one_hot(torch.tensor(index), 3) - shares)
            slopes = torch.autograd.grad(logits, weights, column, retain_graph=True)
            for total, slope in zip(sums, slopes, strict=True):
                total += slope.square()
    scores = SecondDerivative().scores(graph, here)
    for name, weight, total in zip(names, weights, sums, strict=True):
        torch.testing.assert_close(
            scores[name], weight.detach().square() * total / len(inputs) / 2, rtol=1e-3, atol=1e-9
        )


def test_activations_that_work_in_place_change_nothing(tmp_path: Path) -> None:
    graph, here = graph_of(convolutions()), context(tmp_path)
    expected = SecondDerivative().scores(graph, here)
    for part in graph.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = True
    torch.testing.assert_close(SecondDerivative().scores(graph, here), expected)


def test_one_drawn_column_is_right_on_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, here = mlp(), context(tmp_path)
    whole = SecondDerivative().scores(graph, here)
    monkeypatch.setattr(module, "EXACT_CLASSES", 2)
    draws = [SecondDerivative().scores(graph, dataclasses.replace(here, seed=seed)) for seed in range(40)]
    for name, score in whole.items():
        mean = torch.stack([draw[name] for draw in draws]).mean(0)
        assert float((mean - score).norm() / score.norm()) < 0.1


def test_l1_and_l2(tmp_path: Path) -> None:
    graph = graph_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    weight = graph.get_parameter("1.weight").detach()
    assert torch.equal(L1().scores(graph, context(tmp_path))["1.weight"], weight.abs())
    assert torch.equal(L2().scores(graph, context(tmp_path))["1.weight"], weight * weight)


def test_taylor_of_logistic_regression(tmp_path: Path) -> None:
    """∂L/∂W = (p - y)ᵀ x / n per batch, by hand; 48 samples are two batches, drawn by the seed."""
    graph, here = graph_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))), context(tmp_path, seed=3)
    weight, bias = graph.get_parameter("1.weight").detach(), graph.get_parameter("1.bias").detach()
    expected = torch.zeros(3, 64)
    for inputs, labels in here.data.batches("calibration", 32, shuffle=3):
        x = inputs.flatten(1)
        error = (x @ weight.T + bias).softmax(1) - F.one_hot(labels, 3)
        expected += (weight * (error.T @ x / len(x))).abs() / 2
    scores = Taylor().scores(graph, here)
    torch.testing.assert_close(scores, {"1.weight": expected})


def test_batchnorm_scale(tmp_path: Path) -> None:
    graph = graph_of(convolutions())
    graph.get_submodule("1").weight.data = torch.tensor([1.0, -2.0, 0.0, 0.5])
    scores = BatchNormScale().scores(graph, context(tmp_path))
    assert scores.keys() == {"0.weight"}  # nothing else has a BatchNorm behind it
    torch.testing.assert_close(scores["0.weight"].sum((1, 2, 3)), torch.tensor([1.0, 2.0, 0.0, 0.5]))
    with pytest.raises(StepFailed, match="BatchNorm"):
        BatchNormScale().scores(mlp(), context(tmp_path))


def test_random_depends_on_the_seed_alone(tmp_path: Path) -> None:
    one, same, other = (
        Random().scores(mlp(), context(tmp_path, seed=seed))["1.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_random_sums_of_many_weights_still_differ(tmp_path: Path) -> None:
    graph = graph_of(nn.Sequential(nn.Flatten(), nn.Linear(2048, 64)))
    channels = Random().scores(graph, context(tmp_path))["1.weight"].double().sum(1)
    assert float(channels.quantile(0.75) / channels.quantile(0.25)) > 3


@pytest.mark.parametrize("name", IMPORTANCES)
def test_what_every_importance_promises(name: str, tmp_path: Path) -> None:
    graph, before = small_net(), small_net().state_dict()
    scores = IMPORTANCES[name]().scores(graph, context(tmp_path))
    assert scores
    for parameter, score in scores.items():
        weight = graph.get_parameter(parameter)
        assert score.shape == weight.shape
        assert score.dtype == torch.float32
        assert not score.requires_grad
        assert bool((score >= 0).all())
        assert bool(score.isfinite().all())
    assert all(torch.equal(tensor, before[key]) for key, tensor in graph.state_dict().items())
    assert not any(part._forward_hooks for part in graph.modules())
    assert IMPORTANCES[name].title
    assert IMPORTANCES[name].source


def test_only_the_calibration_split_is_looked_at(tmp_path: Path) -> None:
    splits = easy_data().splits
    here = context(tmp_path, data=ArrayData({"calibration": splits["calibration"]}, ("a", "b", "c")))
    for importance in IMPORTANCES.values():
        importance().scores(small_net(), here)


def test_a_method_offers_all_of_them() -> None:
    assert TypeAdapter(ImportanceId).json_schema()["enum"] == sorted(IMPORTANCES)
