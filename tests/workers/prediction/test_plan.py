"""A plan knows the networks that pruning makes: against networks that were really cut."""

import pytest

from tests.workers.prediction.tables import spec
from workers.graph.students import known
from workers.measures.macs import count_macs
from workers.prediction.plan import Plan, Width
from workers.prediction.reading import read_plan
from workers.pruning.choosing import choose
from workers.pruning.following import copied
from workers.pruning.groups import cut
from workers.pruning.search import sample_input


@pytest.mark.parametrize("name", ["cifar_resnet8", "squeezenet1_1"])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_macs_are_those_of_the_network_that_was_cut(name: str, scope: str) -> None:
    model = spec(name, 64)
    graph = known(name, model, seed=0)
    plan, groups = read_plan(graph, model)
    narrow = copied(graph)
    cut(narrow, sample_input(model, 0), choose(groups, 0.4, scope, 8))  # type: ignore[arg-type]
    left = plan.narrowed(0.4, 8, scope=scope)  # type: ignore[arg-type]
    exact = count_macs(narrow, model) / count_macs(graph, model)
    # Of a global choice the plan knows the course of the scores alone.
    assert plan.macs_left(left) == pytest.approx(exact, rel=1e-9 if scope == "uniform" else 0.05)
    weights = sum(p.numel() for p in narrow.parameters()) / sum(p.numel() for p in graph.parameters())
    assert plan.parameters_left(left) == pytest.approx(weights, rel=0.02 if scope == "uniform" else 0.06)


def test_kept_layers_hold_their_neighbours() -> None:
    model = spec("cifar_resnet8", 32)
    plan, _ = read_plan(known("cifar_resnet8", model, seed=0), model)
    reader = next(layer for layer in plan.layers if layer.reads and layer.group)
    left = plan.narrowed(0.5, 8, keep=frozenset({reader.name}))
    assert {left.get(root, 1.0) for root in (*reader.reads, str(reader.group))} == {1.0}
    assert min(left.values()) < 1


def test_weakest_of_all_go_first_where_they_are() -> None:
    """By hand: of eight channels the four weakest all stand in the first group."""
    groups = {
        "a": Width(width=4, scores=(0.1, 0.1, 0.2, 0.2)),
        "b": Width(width=4, scores=(1.0, 2.0, 2.0, 3.0)),
    }
    plan = Plan(layers=(), groups=groups, macs=1, parameters=1)
    assert plan.narrowed(0.5, 1, scope="global") == {"a": 0.25, "b": 1.0}  # never to nothing
    assert plan.narrowed(0.25, 1, scope="global") == {"a": 0.5, "b": 1.0}
    assert plan.narrowed(0.5, 1) == {"a": 0.5, "b": 0.5}


def test_widths_round_as_asked() -> None:
    plan = Plan(layers=(), groups={"a": Width(width=40), "b": Width(width=30, parts=3)}, macs=1, parameters=1)
    assert plan.narrowed(0.4, 8) == {"a": 24 / 40, "b": 24 / 30}
    assert plan.narrowed(0.35, 8, upwards=True)["a"] == 32 / 40
    assert plan.narrowed(0.5, 8, before={"a": 24 / 40, "b": 1.0})["a"] == 16 / 40
