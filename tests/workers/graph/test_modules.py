"""The rebuilt graph is the original: same numbers in evaluation, and alive in training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.fx import GraphModule

from tests.workers.graph.networks import NETWORKS, Attention, Kinds, Residual, Shared, trained
from workers.base import ImagePreprocessing
from workers.graph.archive import read_archive, trace, write_archive
from workers.graph.modules import to_modules
from workers.graph.program import as_written

Export = Callable[..., Path]
SIDE = 16


def rebuilt(path: Path, shape: tuple[int, ...] = (3, SIDE, SIDE)) -> GraphModule:
    return to_modules(as_written(read_archive(path)), shape)


def written(graph: nn.Module, path: Path, side: int = SIDE) -> Path:
    preprocessing = ImagePreprocessing(channels=3, height=side, width=side, mean=(0, 0, 0), std=(1, 1, 1))
    write_archive(trace(graph, preprocessing), path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_logits_equal_the_original(name: str, export: Export) -> None:
    net = trained(NETWORKS[name])
    graph = rebuilt(export(net))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, SIDE, SIDE)
        torch.testing.assert_close(graph(x.clone()), net(x.clone()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_reaches_everything(name: str, export: Export) -> None:
    graph = rebuilt(export(trained(NETWORKS[name]))).train()
    means = {key: value.clone() for key, value in graph.named_buffers() if key.endswith("running_mean")}
    graph(torch.randn(4, 3, SIDE, SIDE)).square().sum().backward()
    assert [key for key, value in graph.named_parameters() if value.grad is None] == []
    norms = [module for module in graph.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == len(means)
    for key, before in means.items():
        assert not torch.equal(before, graph.get_buffer(key)), key


@pytest.mark.parametrize("build", [Residual, Kinds, Attention])
@torch.no_grad()
def test_dropout_is_active_in_training_only(build: type[nn.Module], export: Export) -> None:
    graph = rebuilt(export(trained(build)))
    x = torch.randn(4, 3, SIDE, SIDE)
    assert torch.equal(graph(x), graph(x))
    for module in graph.modules():
        module.train(isinstance(module, nn.Dropout | nn.Dropout2d))
    assert not torch.equal(graph(x), graph(x))


@pytest.mark.parametrize("view", [False, True])
def test_a_value_read_after_it_was_changed_in_place(view: bool) -> None:
    """torch.export names the changed value anew, but a file need not: here `a` itself is read later."""
    aten, graph = torch.ops.aten, torch.fx.Graph()
    a = graph.call_function(aten.neg.default, (graph.placeholder("x"),))
    seen = graph.call_function(aten.view.default, (a, [3, 2])) if view else a
    graph.call_function(aten.relu_.default, (a,))
    graph.output(graph.call_function(aten.add.Tensor, (seen, 1)))
    written = GraphModule(nn.Module(), graph)
    x = torch.randn(2, 3)
    assert torch.equal(to_modules(written, (3,))(x), written(x))
    assert torch.equal(written(x).flatten(), torch.relu(-x).flatten() + 1)


def test_functional_calls_become_modules(export: Export) -> None:
    kinds = {type(module) for module in rebuilt(export(trained(Residual))).modules()}
    assert {nn.ReLU, nn.Hardsigmoid, nn.Dropout, nn.Conv2d, nn.BatchNorm2d, nn.Linear} <= kinds


def test_what_is_shared_stays_shared(export: Export, tmp_path: Path) -> None:
    graph = rebuilt(export(trained(Shared)))
    for _ in range(2):  # and once more after writing and reading
        calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
        assert calls.count("twice") == 2
        assert graph.get_parameter("one.weight") is graph.get_parameter("one_layer.weight")
        graph = rebuilt(written(graph, tmp_path / "again.pt2"))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_writing_and_reading_again_changes_nothing(name: str, export: Export, tmp_path: Path) -> None:
    first = rebuilt(export(trained(NETWORKS[name])))
    second = rebuilt(written(first, tmp_path / "second.pt2"))
    third = rebuilt(written(second, tmp_path / "third.pt2"))
    x = torch.randn(3, 3, SIDE, SIDE)
    assert torch.equal(first(x.clone()), third(x.clone()))
    assert [*second.state_dict()] == [*third.state_dict()]
    assert {*first.state_dict()} == {*second.state_dict()}
    assert [str(node.target) for node in second.graph.nodes] == [
        str(node.target) for node in third.graph.nodes
    ]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_plain_torch_opens_what_we_write(name: str, export: Export, tmp_path: Path) -> None:
    net = trained(NETWORKS[name])
    graph = rebuilt(export(net))
    program = torch.export.load(written(graph, tmp_path / "canonical.pt2"))
    x = torch.randn(3, 3, SIDE, SIDE)
    torch.testing.assert_close(program.module()(x.clone()), net(x.clone()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["Residual", "Kinds", "Attention"])
@torch.no_grad()
def test_an_export_in_training_mode_is_read_as_evaluation(name: str, export: Export) -> None:
    net = trained(NETWORKS[name])
    graph = rebuilt(export(net.train()))
    net.eval()
    x = torch.randn(3, 3, SIDE, SIDE)
    torch.testing.assert_close(graph(x), net(x), rtol=1e-5, atol=1e-5)
    assert "num_batches_tracked" not in graph.code


def test_layers_keep_the_original_names(export: Export) -> None:
    net = trained(Residual)
    graph = rebuilt(export(net))
    assert {*net.state_dict()} == {*graph.state_dict()}


def test_weights_of_half_and_double_precision(export: Export) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Linear(3, 4).double()
            self.slim = nn.Linear(4, 2).bfloat16()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.wide(x.mean((2, 3)).double())
            return self.slim(x.bfloat16()).float()  # type: ignore[no-any-return]

    net = trained(Mixed)
    graph = rebuilt(export(net))
    x = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(graph(x), net(x))
    assert graph.get_parameter("slim.weight").dtype is torch.bfloat16


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", pytest.param("swin_t", marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_torchvision(name: str, export: Export) -> None:
    net = trained(lambda: torchvision.models.get_model(name, weights=None, num_classes=7))
    graph = rebuilt(export(net, (3, 64, 64)), (3, 64, 64))
    x = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(graph(x), net(x), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in graph.parameters()) == sum(p.numel() for p in net.parameters())


class AddsInPlace(nn.Module):
    """As the residual blocks of MobileNet and EfficientNet do, and once not."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            y: torch.Tensor = conv(x)
            y += x
            x = (y + 1).clamp_(0, 6)
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("build", [*NETWORKS.values(), AddsInPlace])
def test_nodes_keep_their_names_when_written_again(
    build: Callable[[], nn.Module], export: Export, tmp_path: Path
) -> None:
    """A recipe names exits by the nodes of the upload; the step finds those of the baseline's archive."""
    first = rebuilt(export(trained(build)))
    again = rebuilt(written(first, tmp_path / "again.pt2"))
    assert [node.name for node in again.graph.nodes] == [node.name for node in first.graph.nodes]
