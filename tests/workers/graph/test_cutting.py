"""Parts put one after the other are the whole, wherever it is cut."""

import operator
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from tests.workers.graph.networks import NETWORKS, trained
from workers.graph.archive import read_archive
from workers.graph.cutting import block_ends, cut_points, input_of, output_of, part
from workers.graph.modules import to_modules
from workers.graph.program import as_written
from workers.graph.resnets import RESNETS

Export = Callable[..., Path]
SHAPE = (3, 16, 16)
#: The batch is none of those that the cutting itself looks at.
BATCH = 3


def rebuilt(path: Path, shape: tuple[int, ...] = SHAPE) -> GraphModule:
    return to_modules(as_written(read_archive(path)), shape)


@torch.no_grad()
def check_parts(graph: GraphModule, points: list[Node], shape: tuple[int, ...]) -> None:
    """Cut at all the points at once; every part is given what the one before it made, and nothing else."""
    inputs = torch.randn(BATCH, *shape)
    hidden = inputs.clone()
    for start, end in pairwise([input_of(graph), *points, output_of(graph)]):
        hidden = part(graph, start, [end], shape)(hidden)
        assert len(hidden) == BATCH
    assert torch.equal(hidden, graph(inputs.clone()))


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_are_the_whole(name: str, export: Export) -> None:
    graph = rebuilt(export(trained(NETWORKS[name])))
    points = cut_points(graph, SHAPE)
    assert points
    check_parts(graph, points, SHAPE)
    with torch.no_grad():
        inputs = torch.randn(BATCH, *SHAPE)
        for point in points:  # and in two, with the hidden tensor as a result beside another
            hidden, logits = part(graph, input_of(graph), [point, output_of(graph)], SHAPE)(inputs.clone())
            assert torch.equal(part(graph, point, [output_of(graph)], SHAPE)(hidden.clone()), logits)


def families(*quick: str) -> list[object]:
    names = """resnet18 mobilenet_v3_small efficientnet_b0 densenet121 convnext_tiny vit_b_16 swin_t
    regnet_y_400mf vgg11 googlenet""".split()
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", families("mobilenet_v3_small"))
def test_torchvision(name: str, export: Export) -> None:
    side = 224 if name.startswith("vit") else 64
    more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net = trained(lambda: torchvision.models.get_model(name, weights=None, num_classes=7, **more))
    shape = (3, side, side)
    graph = rebuilt(export(net, shape), shape)
    points = cut_points(graph, shape)
    assert len(block_ends(graph, points)) >= 6
    check_parts(graph, points, shape)


@pytest.mark.parametrize("name", [*NETWORKS, "cifar_resnet8"])
def test_cut_points_are_what_every_way_goes_through(name: str, export: Export) -> None:
    """The definition, by brute force: without the node, nothing of the input reaches the output."""
    net = RESNETS[name](num_classes=4) if name in RESNETS else NETWORKS[name]()
    graph = rebuilt(export(trained(lambda: net)))
    found = cut_points(graph, SHAPE)
    end = output_of(graph)
    with torch.no_grad():
        inputs = torch.randn(BATCH, *SHAPE)
        seen = _Seen(graph)
        seen.run(inputs)
    for node in graph.graph.nodes:
        value = seen.seen.get(node)
        fits = isinstance(value, Tensor) and len(value) == BATCH and value.dim() >= 2
        on_the_way = (
            node is not end and node.op not in ("placeholder", "output") and not _reaches(graph, node)
        )
        copied = len(node.users) == 1 and "ropout" in next(iter(node.users)).name
        assert (node in found) == (fits and on_the_way and not copied), node


class _Seen(torch.fx.Interpreter):
    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[Node, object] = {}

    def run_node(self, n: Node) -> object:
        self.seen[n] = super().run_node(n)
        return self.seen[n]


def _reaches(graph: GraphModule, without: Node) -> bool:
    """True when numbers of the input reach the output although `without` is not there."""
    reached = {input_of(graph)}
    for node in graph.graph.nodes:
        if node is not without and "sym_size" not in str(node.target):
            reached |= {node} if reached & set(node.all_input_nodes) else set()
    return output_of(graph) in reached


def handmade(*lines: Callable[[Graph, Node], Node]) -> GraphModule:
    graph = Graph()
    last = graph.placeholder("input")
    for line in lines:
        last = line(graph, last)
    graph.output(last)
    return GraphModule(nn.Module(), graph)


def aten(name: str, *more: Any) -> Callable[[Graph, Node], Node]:
    target = operator.attrgetter(name)(torch.ops.aten)
    return lambda graph, last: graph.call_function(target, (last, *more))


def test_no_cut_where_the_rows_are_not_the_samples() -> None:
    graph = handmade(
        aten("neg.default"), aten("reshape.default", [-1, 8]), aten("neg.default"),
        aten("reshape.default", [-1, 16]), aten("neg.default"), aten("abs.default"),
    )  # fmt: skip
    names = [node.name for node in cut_points(graph, (16,))]
    assert names == ["neg_default", "reshape_default_1", "neg_default_2"]


@pytest.mark.parametrize("view", [False, True])
def test_no_cut_before_an_operator_that_changes_the_tensor_in_place(view: bool) -> None:
    """An exit would read it as it is afterwards."""

    def change(graph: Graph, last: Node) -> Node:
        seen = graph.call_function(torch.ops.aten.view.default, (last, [-1, 16])) if view else last
        graph.call_function(torch.ops.aten.relu_.default, (seen,))
        return last

    graph = handmade(aten("neg.default"), change, aten("mul.Tensor", 2), aten("abs.default"))
    assert [node.name for node in cut_points(graph, (16,))] == ["mul_tensor"]
    whole = part(graph, input_of(graph), [output_of(graph)], (16,))
    inputs = torch.randn(3, 16)
    assert torch.equal(whole(inputs), torch.relu(-inputs) * 2)


def test_blocks_end_after_the_activation(export: Export) -> None:
    graph = rebuilt(export(trained(lambda: RESNETS["cifar_resnet8"](num_classes=4))))
    assert [node.name for node in block_ends(graph, cut_points(graph, SHAPE))] == [
        "relu_1", "relu_3", "relu_5", "flatten_using_ints",
    ]  # fmt: skip
