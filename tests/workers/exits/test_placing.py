"""Where exits are put, by made-up times and by real ones."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from torch import fx, nn
from torch.fx import GraphModule

from tests.support.arrays import context
from workers.errors import StepFailed
from workers.exits import placing
from workers.exits.placing import MIN_GAP, SHARES, PrefixTimes, place_by_name, place_by_number
from workers.graph.cutting import block_ends, cut_points


def chain(blocks: int, channels: int = 4) -> GraphModule:
    """Equal convolutions, so that every block takes as long as the next."""
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 1), nn.ReLU()]
    for _ in range(blocks):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    return fx.symbolic_trace(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * channels, 3))).eval()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Shares by the place of a cut, instead of times; what was asked for is kept."""
    asked: dict[str, float] = {}

    class Made(PrefixTimes):
        def __init__(self, graph: GraphModule, points: Sequence[fx.Node], context: object) -> None:  # noqa: ARG002
            self.points = list(points)

        def share(self, point: fx.Node) -> float:
            asked[point.name] = made = (self.points.index(point) + 1) / (len(self.points) + 1)
            return made

    monkeypatch.setattr(placing, "PrefixTimes", Made)
    return asked


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_stands_nearest_to_the_shares(number: int, told: dict[str, float], tmp_path: Path) -> None:
    places = place_by_number(chain(38), number, context(tmp_path))
    step = 1 / (len(block_ends(chain(38), cut_points(chain(38), (1, 8, 8)))) + 1)
    assert [place.share for place in places] == pytest.approx(SHARES[number], abs=step / 2 + 1e-9)
    assert len(told) < 40 * 0.6, "more was timed than is needed to find them"


def test_fewer_exits_where_the_model_has_no_room(told: dict[str, float], tmp_path: Path) -> None:
    places = place_by_number(chain(2), 4, context(tmp_path))
    shares = [0.0, *(place.share for place in places), 1.0]
    assert 1 <= len(places) < 4
    assert all(later - earlier >= MIN_GAP - 1e-9 for earlier, later in pairwise(shares))
    assert len({place.cut for place in places}) == len(places)
    assert told


def test_a_model_without_a_place_is_told(tmp_path: Path) -> None:
    graph = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).eval()
    with pytest.raises(StepFailed, match="no cut of the model"):
        place_by_number(graph, 2, context(tmp_path))


def test_named_cuts_come_in_the_order_of_the_graph(told: dict[str, float], tmp_path: Path) -> None:
    places = place_by_name(chain(3), ["_5", "_2"], context(tmp_path))
    assert [place.cut.name for place in places] == ["_2", "_5"]
    assert told
    with pytest.raises(StepFailed, match=r"'nowhere'.*_0, _1, _2"):
        place_by_name(chain(3), ["_2", "nowhere"], context(tmp_path))


def test_times_are_taken_on_the_exported_model(tmp_path: Path) -> None:
    """Of 8 equal blocks, 2, 4 and 6; convolutions of 0.1 ms and more, so that a call's own cost is small."""
    graph = chain(8, channels=64)
    names = ["_5", "_9", "_13"]
    shares = [place.share for place in place_by_name(graph, names, context(tmp_path))]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.1)
    assert not [*tmp_path.iterdir()]
