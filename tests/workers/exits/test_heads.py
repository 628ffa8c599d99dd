from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from tests.support.arrays import candidate, small_net
from workers.exits.heads import Layout, heads_for, layout_of, make_head

SEED = 3


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((7,), "vector"), ((5, 12), "tokens"), ((4, 6, 12), "channels_last"), ((96, 7, 5), "channels_first"),
        ((16, 28, 28), "channels_first"), ((8, 3, 3), "channels_first"), ((8, 1, 1), "channels_first"),
        ((3, 224, 120), "channels_first"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["auto", "linear", "conv"])
def test_any_features_become_logits(shape: tuple[int, ...], layout: Layout, kind: str) -> None:
    head = make_head(torch.Size(shape), layout, 4, kind, SEED)  # type: ignore[arg-type]
    assert head(torch.randn(2, *shape)).shape == (2, 4)
    again = make_head(torch.Size(shape), layout, 4, kind, SEED)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("channels", "kind", "convolves"),
    [(31, "auto", True), (32, "auto", False), (16, "linear", False), (512, "conv", True)],
)
def test_thin_features_get_a_convolution(channels: int, kind: str, convolves: bool) -> None:
    head = make_head(torch.Size((channels, 8, 8)), "channels_first", 4, kind, SEED)  # type: ignore[arg-type]
    assert any(isinstance(layer, nn.Conv2d) for layer in head) is convolves


@pytest.mark.parametrize(
    ("channels", "classes", "values"),
    [
        (16, 4, 49), (32, 4, 49), (64, 4, 25), (64, 1000, 25), (65, 4, 25), (96, 10, 16), (96, 100, 1),
        (512, 4, 4), (512, 20, 1), (2048, 4, 1), (4096, 4, 1),
    ],
)  # fmt: skip
def test_features_are_read_on_a_grid_as_far_as_the_layer_stays_small(
    channels: int, classes: int, values: int
) -> None:
    *_, layer = make_head(torch.Size((channels, 28, 28)), "channels_first", classes, "linear", SEED)
    assert isinstance(layer, nn.Linear)
    assert layer.in_features == channels * values


@pytest.mark.parametrize("side", [1, 6, 7, 8, 13, 16, 28, 32, 57])
def test_every_place_of_the_map_is_seen(side: int) -> None:
    for kind in ("linear", "conv"):
        head = make_head(torch.Size((8, side, side)), "channels_first", 1, kind, SEED).eval()
        maps = torch.rand(1, 8, side, side, requires_grad=True)
        pooled = head[0](maps)
        pooled.sum().backward()
        assert maps.grad is not None
        assert (maps.grad > 0).all()
        assert max(pooled.shape[2:]) <= 14


def test_linear_heads_are_means_and_a_layer() -> None:
    maps, tokens, thin = torch.randn(2, 96, 4, 5), torch.randn(2, 9, 6), torch.randn(2, 6, 14, 14)
    *_, layer = head = make_head(torch.Size((96, 4, 5)), "channels_first", 300, "linear", SEED)
    torch.testing.assert_close(head(maps), layer(maps.mean((2, 3))))
    *_, layer = head = make_head(torch.Size((6, 14, 14)), "channels_first", 3, "linear", SEED)
    torch.testing.assert_close(head(thin), layer(thin.reshape(2, 6, 7, 2, 7, 2).mean((3, 5)).flatten(1)))
    *_, layer = head = make_head(torch.Size((9, 6)), "tokens", 3, "linear", SEED)
    normed = (tokens - tokens.mean(2, keepdim=True)) / (
        tokens.var(2, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    torch.testing.assert_close(head(tokens), layer(normed.mean(1)))


def test_a_convolution_tells_left_from_right() -> None:
    """Which a mean over the map cannot."""
    maps = torch.randn(1, 8, 8, 8)
    head = make_head(torch.Size((8, 8, 8)), "channels_first", 3, "conv", SEED).eval()
    with torch.no_grad():
        assert not torch.allclose(head(maps), head(maps.roll(4, 3)), atol=1e-2)


class Maps(nn.Module):
    def __init__(self, reader: nn.Module, on_the_way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.reader, self.on_the_way = reader, on_the_way

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.on_the_way(torch.relu(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("reader", "on_the_way", "layout"),
    [
        (nn.Conv2d(6, 2, 1), lambda x: x, "channels_first"),
        (nn.LayerNorm(6), lambda x: torch.ops.aten.add.Tensor(x, 1), "channels_last"),
        (nn.Linear(6, 2), lambda x: torch.ops.aten.roll.default(x, [1], [1]), "channels_last"),
        (nn.LayerNorm(6), lambda x: torch.ops.aten.permute.default(x, [0, 2, 3, 1]), "channels_first"),
    ],
)
def test_the_layer_that_reads_a_map_tells_where_its_channels_are(
    reader: nn.Module, on_the_way: Callable[[Tensor], Tensor], layout: Layout
) -> None:
    graph = fx.symbolic_trace(Maps(reader, on_the_way))
    cut = next(node for node in graph.graph.nodes if node.name == "relu")
    assert layout_of(graph, cut, 4) == layout


def test_a_head_fits_the_features_at_its_cut() -> None:
    model = candidate(small_net())
    assert model.graph is not None
    for cut, inputs in (("_2", (8, 8, 8)), ("_5", (128,))):
        head = heads_for(model.graph, [cut], model.spec, "auto", SEED)[cut]
        assert head(torch.randn(2, *inputs)).shape == (2, 3)
