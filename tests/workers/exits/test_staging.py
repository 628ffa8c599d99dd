"""A graph with exits: what it answers, what it keeps when it is saved, how its gradients add up."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from tests.support.arrays import small_net
from tests.workers.graph.networks import Attention, Residual, trained
from workers.errors import StepFailed
from workers.exits.heads import make_head
from workers.exits.staging import (
    HeadsOnly,
    add_exits,
    balanced,
    cuts_of,
    hidden_shapes,
    segments,
    staged_logits,
)  # fmt: skip
from workers.graph.archive import read_archive, trace_shape, write_archive
from workers.graph.cutting import cut_points, output_of
from workers.graph.modules import to_modules
from workers.graph.program import as_written
from workers.graph.shapes import values

NETS = {
    "small": (small_net, (1, 8, 8)),
    "residual": (Residual, (3, 16, 16)),
    "attention": (Attention, (3, 16, 16)),
}
Staged = tuple[GraphModule, GraphModule, list[nn.Sequential], tuple[int, ...]]


def reopened(graph: nn.Module, shape: tuple[int, ...], path: Path) -> GraphModule:
    write_archive(trace_shape(graph, shape), path)
    return to_modules(as_written(read_archive(path)), shape)


@pytest.fixture(params=NETS, scope="module")
def staged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """The graph as it was, the one with two exits, their heads and the shape of the input."""
    build, shape = NETS[request.param]
    file = tmp_path_factory.mktemp("staged") / "model.pt2"
    graph = reopened(reopened(trained(build), shape, file), shape, file)
    known, points = values(graph, shape), cut_points(graph, shape)
    chosen = [points[len(points) // 4], points[-1 - len(points) // 3]]
    layouts = {2: "vector", 3: "tokens", 4: "channels_first"}
    classes = known[output_of(graph)].shape[1]
    sizes = [known[node].shape[1:] for node in chosen]
    heads = [make_head(size, layouts[len(size) + 1], classes, "auto", 0) for size in sizes]  # type: ignore[arg-type]
    names = [node.name for node in chosen]
    return graph, add_exits(graph, dict(zip(names, heads, strict=True))), heads, shape


def features(graph: GraphModule, names: list[str], inputs: Tensor) -> list[Tensor]:
    """What the nodes give, read by running the graph step by step."""
    found: dict[str, Tensor] = {}

    class Reader(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            found[n.name] = super().run_node(n)
            return found[n.name]

    with torch.no_grad():
        Reader(graph).run(inputs)
    return [found[name] for name in names]


@torch.no_grad()
def test_the_logits_are_those_of_the_heads_and_of_the_graph_as_it_was(staged: Staged) -> None:
    graph, with_exits, heads, shape = staged
    inputs = torch.randn(4, *shape)
    logits = staged_logits(with_exits, inputs)
    assert torch.equal(logits[-1], graph(inputs))
    seen = features(graph, [cut.name for cut in cuts_of(with_exits)], inputs)
    for head, feature, got in zip(heads, seen, logits, strict=False):
        torch.testing.assert_close(got, head.eval()(feature))


@torch.no_grad()
def test_saved_and_read_again_it_is_the_same(staged: Staged, tmp_path: Path) -> None:
    """In answers, in the names of the cuts and in where the heads are read to belong."""
    _, with_exits, _, shape = staged
    again = reopened(with_exits, shape, tmp_path / "b.pt2")
    inputs = torch.randn(5, *shape)
    assert torch.equal(staged_logits(again, inputs), staged_logits(with_exits, inputs))
    assert [node.name for node in cuts_of(again)] == [node.name for node in cuts_of(with_exits)]
    assert {*again.state_dict()} == {*with_exits.state_dict()}


@torch.no_grad()
def test_segments_one_after_the_other_are_the_whole(staged: Staged, tmp_path: Path) -> None:
    _, with_exits, _, shape = staged
    for version in (with_exits, reopened(with_exits, shape, tmp_path / "b.pt2")):
        inputs = hidden = torch.randn(3, *shape)
        expected = staged_logits(version, inputs)
        *early, last = segments(version, shape)
        for segment, logits, size in zip(early, expected, hidden_shapes(version, shape), strict=False):
            got, hidden = segment(hidden)
            assert torch.equal(got, logits)
            assert hidden.shape == (3, *size)
        assert torch.equal(last(hidden), expected[-1])
        own = [name for part in (*early, last) for name, _ in part.named_parameters()]
        assert sorted(set(own)) == sorted(name for name, _ in version.named_parameters())
        assert len(own) == len(set(own)), "a weight lies in two segments"


@torch.no_grad()
def test_a_graph_without_exits_says_so() -> None:
    with pytest.raises(StepFailed, match="has none"):
        segments(small_net(), (1, 8, 8))


def gradients(graph: GraphModule, inputs: Tensor, exits: list[int]) -> dict[str, Tensor]:
    """Of the sum of these exits' squared logits, by the name of the weight."""
    graph.eval().requires_grad_(True).zero_grad()
    graph(inputs)[:, exits].square().sum().backward()
    return {name: p.grad.clone() for name, p in graph.named_parameters() if p.grad is not None}


def test_balanced_gradients_are_the_mean_over_what_lies_behind(staged: Staged) -> None:
    """Of the exits that a weight serves: before the first exit all three, before the second two."""
    _, with_exits, _, shape = staged
    inputs = torch.randn(4, *shape)
    with torch.no_grad():
        assert torch.equal(balanced(with_exits)(inputs), with_exits(inputs))
    alone = [gradients(with_exits, inputs, [number]) for number in range(3)]
    together = gradients(balanced(with_exits), inputs, [0, 1, 2])
    first, second, third = ({name for name, _ in s.named_parameters()} for s in segments(with_exits, shape))
    for name, gradient in together.items():
        served = [found[name] for found in alone if name in found]
        factor = 3 if name in first else 2 if name in second else 1
        if name.startswith("early_exit"):  # serves itself alone
            factor = 1
        torch.testing.assert_close(gradient, sum(served) / factor, rtol=1e-4, atol=1e-5)
    assert third & together.keys()


def test_heads_alone_train_and_everything_else_stays() -> None:
    graph = small_net()
    with_exits = add_exits(graph, {"_2": make_head(torch.Size((8, 8, 8)), "channels_first", 3, "conv", 0)})
    model = HeadsOnly(with_exits).train()
    before = {name: value.clone() for name, value in with_exits.state_dict().items()}
    inputs = torch.randn(6, 1, 8, 8)
    model(inputs)[:, 0].square().sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, value in with_exits.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("early_exit"), name
    with torch.no_grad():
        assert torch.equal(model(inputs)[:, -1], graph(inputs)), "dropout or BatchNorm of the graph is on"
