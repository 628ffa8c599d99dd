"""Between timed widths, against times that follow a formula the fit does not know."""

from itertools import pairwise

import numpy as np
import pytest

from tests.workers.prediction.tables import row, spec
from workers.graph.students import known
from workers.prediction.plan import Layer, Plan, Shares
from workers.prediction.reading import read_plan
from workers.prediction.surface import Surface


@pytest.fixture(scope="module")
def plan() -> Plan:
    model = spec("cifar_resnet20", 64)
    return read_plan(known("cifar_resnet20", model, seed=0), model)[0]


def bent(plan: Plan, layer: Layer, left: Shares) -> float:
    """Small layers waste time: no polynomial in the channels."""
    kept = plan.kept_of(layer, left)
    return layer.macs / plan.macs * kept * (1 + 0.3 / (0.2 + plan.outputs_of(layer, left) / layer.outputs))


def chance(plan: Plan, number: int) -> dict[str, float]:
    draw = np.random.default_rng(number)
    return {
        root: max(8, round(draw.uniform(0.2, 1) * group.width / 8) * 8) / group.width
        for root, group in plan.groups.items()
        if group.width % 8 == 0
    }


def surface(plan: Plan) -> Surface:
    lefts = [{}, *(plan.narrowed(share / 8, 8) for share in (4, 2, 6, 1, 3, 5, 7))]
    return Surface(plan, [row(plan, left, bent) for left in (*lefts, *(chance(plan, n) for n in range(6)))])


def test_unseen_widths_come_out(plan: Plan) -> None:
    found = surface(plan)
    unseen = [
        *(plan.narrowed(share, 8) for share in (0.3, 0.45, 0.7)),
        *(chance(plan, n) for n in (50, 51, 52)),
    ]
    errors = [found.ratio(left) / row(plan, left, bent).ratio - 1 for left in unseen]
    assert np.abs(errors).mean() < 0.02
    assert np.abs(errors).max() < 0.05


def test_the_model_as_it_is_comes_out(plan: Plan) -> None:
    assert surface(plan).ratio({}) == pytest.approx(row(plan, {}, bent).ratio, rel=0.01)


def test_narrower_is_never_slower(plan: Plan) -> None:
    found = surface(plan)
    ratios = [found.ratio(plan.narrowed(share / 16, 8)) for share in range(15)]
    assert all(after <= before * 1.01 for before, after in pairwise(ratios))
    assert ratios[-1] < 0.4 * ratios[0]


def test_half_the_time_of_a_layer_is_saved(plan: Plan) -> None:
    """By hand: the layer's own share, halved."""
    found = surface(plan)
    layer = max(plan.layers, key=lambda layer: layer.macs)
    share = bent(plan, layer, {}) / row(plan, {}, bent).ratio
    saved = 1 - found.ratio({}, {layer.name: 0.5}) / found.ratio({})
    assert saved == pytest.approx(share / 2, rel=0.02)


@pytest.mark.parametrize("block", [8, 16])
def test_channels_are_computed_in_the_blocks_of_the_processor(plan: Plan, block: int) -> None:
    """Some processors compute 24 channels as 32; inputs that fill no block are read one by one."""

    def blocked(plan: Plan, layer: Layer, left: Shares) -> float:
        inputs, outputs = plan.inputs_of(layer, left), plan.outputs_of(layer, left)
        full = -(-outputs // block) * block * (inputs if inputs < block else -(-inputs // block) * block)
        return 0.1 + full / (layer.inputs * layer.outputs)

    lefts = [{}, *(plan.narrowed(share / 8, 8) for share in (4, 2, 6, 1, 3, 5, 7))]
    found = Surface(
        plan, [row(plan, left, blocked) for left in (*lefts, *(chance(plan, n) for n in range(6)))]
    )
    assert found.block == block
    for number in (50, 51, 52):
        left = chance(plan, number)
        exact = row(plan, left, blocked).ratio
        assert found.ratio(left) == pytest.approx(exact, rel=0.01)
