"""From a recipe to numbers: against the steps carried out, and against sums by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.noise import Noise
from tests.workers.prediction.tables import TARGET, row, spec, table
from workers.base import Candidate, Context, Method
from workers.catalog import METHODS, RUNTIMES
from workers.graph.students import known
from workers.measures.macs import count_macs
from workers.prediction.changes import EXITS, ODD, OTHER
from workers.prediction.expecting import Predictor
from workers.prediction.plan import Layer, Plan, Shares
from workers.prediction.reading import read_plan
from workers.prediction.training import Earlier, earlier, training_seconds

MODEL = spec("cifar_resnet8", 32)


def step(name: str, **settings: Any) -> Method:
    return METHODS[name].model_validate(settings)


@pytest.fixture(scope="module")
def graph() -> Any:
    return known("cifar_resnet8", MODEL, seed=0)


@pytest.fixture(scope="module")
def plan(graph: Any) -> Plan:
    return read_plan(graph, MODEL)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"amount": 0.3},
        {"amount": 0.7, "scope": "global"},
        {"amount": 0.5, "scope": "global", "importance": "random"},
        {"amount": 0.5, "scope": "global", "importance": "l1"},
        {"amount": 0.5, "amount_of": "parameters"},
        {"amount": 0.5, "round_to": 16},
    ],
)
def test_pruning_leads_where_the_step_leads(
    graph: Any, plan: Plan, tmp_path: Path, settings: dict[str, Any]
) -> None:
    chosen = step("structured_pruning", recovery="none", recalibrate=False, **settings)
    model = Candidate(MODEL, graph)
    context = Context(
        Noise((3, 32, 32)),
        model,
        RUNTIMES["onnxruntime"](),
        TARGET,
        torch.device("cpu"),
        0,
        tmp_path,
        lambda _: None,
    )
    made = chosen.apply(model, context)
    assert made.graph is not None
    exact = count_macs(made.graph, MODEL) / count_macs(graph, MODEL)
    expected = Predictor(table(plan)).expect([chosen])
    assert expected.macs == pytest.approx(exact, rel=0.05)
    # In these tables a tenth of the time stays, and the rest is multiply-accumulates.
    assert expected.ratio == pytest.approx(0.1 + 0.9 * exact, rel=0.05)


def test_channels_that_another_importance_chooses_are_guessed_with_a_warning(plan: Plan) -> None:
    """Only where groups lose differently does it matter which importance chose."""
    for scope, importance, told in (
        ("uniform", "taylor", ()),
        ("global", "l2", ()),
        ("global", "random", ()),
        ("global", "taylor", (OTHER,)),
    ):
        pruning = step("structured_pruning", scope=scope, importance=importance)
        assert Predictor(table(plan)).expect([pruning]).notes == told


def test_latency_is_reached_by_latency(plan: Plan) -> None:
    found = Predictor(table(plan)).expect([step("structured_pruning", amount=0.4, amount_of="latency")])
    assert found.ratio is not None
    assert 0.3 < found.ratio <= 0.6


def test_a_narrower_student_is_one(plan: Plan) -> None:
    found = Predictor(table(plan)).expect([step("distillation", student="narrower", width=0.5)])
    assert found.macs == pytest.approx(0.25, abs=0.03)


def test_int8_that_would_be_slower_is_not_expected(plan: Plan) -> None:
    fast, slow = Predictor(table(plan, int8=2.0)), Predictor(table(plan, int8=0.8))
    quantized = step("quantization")
    assert fast.expect([quantized]).ratio == pytest.approx(0.5, rel=0.02)
    kept, handed_out = (slow.expect([step("quantization", keep_faster=faster)]) for faster in (True, False))
    assert kept.ratio == pytest.approx(1.0, rel=0.02)
    assert kept.against_float == pytest.approx(1.25, rel=0.02)
    assert kept.kept_float
    assert kept.size == pytest.approx(1.0)
    assert handed_out.ratio == pytest.approx(1.25, rel=0.02)
    assert handed_out.size == pytest.approx(0.25)
    assert "int8" in Predictor(table(plan)).expect([quantized]).why


def test_what_steps_choose_where_they_are_carried_out_is_timed_elsewhere(plan: Plan) -> None:
    """By hand: on the other machine six tenths of the time stay, so a cut in half there would take more."""

    def heavy(plan: Plan, layer: Layer, left: Shares) -> float:
        share = layer.macs / sum(layer.macs for layer in plan.layers)
        return share * (0.6 + 0.4 * plan.kept_of(layer, left))

    home = Predictor(table(plan))
    rows = tuple(row(plan, known.left, heavy) for known in table(plan).float32)
    there = Predictor(table(plan).model_copy(update={"float32": rows}))
    pruned = step("structured_pruning", amount=0.4, amount_of="latency")
    at_home, found = home.expect([pruned]), there.expect([pruned], home)
    assert found.macs == at_home.macs != there.expect([pruned]).macs
    assert found.macs is not None
    assert found.ratio == pytest.approx(0.6 + 0.4 * found.macs, rel=0.05)
    slow, fast = Predictor(table(plan, int8=0.8, thin=1.4)), Predictor(table(plan, int8=2.0, thin=0.6))
    quantized, thin = step("quantization"), step("low_rank", rank_by="ratio", ratio=0.5)
    assert fast.expect([quantized], slow).ratio == pytest.approx(1.0, rel=0.02)
    assert fast.expect([quantized], slow).kept_float
    assert slow.expect([quantized], fast).ratio == pytest.approx(1.25, rel=0.02)
    assert not slow.expect([quantized], fast).kept_float
    assert fast.expect([thin], slow).ratio == pytest.approx(1.0, rel=0.02)
    assert slow.expect([thin], fast).ratio == pytest.approx(1.4, rel=0.02)


def test_thin_layers_take_what_they_were_timed_at(plan: Plan) -> None:
    found = Predictor(table(plan, thin=0.6)).expect([step("low_rank", rank_by="ratio", ratio=0.5)])
    assert found.ratio == pytest.approx(0.6, rel=0.02)
    slower = Predictor(table(plan, thin=1.4)).expect([step("low_rank", rank_by="ratio", ratio=0.5)])
    assert slower.ratio == pytest.approx(1.0, rel=0.02), "layers that would get slower are left alone"


def test_zeros_and_training_make_nothing_faster(plan: Plan) -> None:
    found = Predictor(table(plan)).expect([step("unstructured_pruning", amount=0.9), step("fine_tuning")])
    assert found.ratio == pytest.approx(1.0, rel=0.01)
    with_exits = Predictor(table(plan)).expect([step("early_exit")])
    assert with_exits.notes == (EXITS,)


@pytest.mark.parametrize(
    "unknown",
    [
        step("structured_pruning", round_to=3),
        step("structured_pruning", remove_blocks=1),
        step("distillation", student="shallower"),
        step("quantization", mode="fp16"),
        step("structured_pruning", amount=0, layer_amounts={"conv1": 0.5}),
        step("structured_pruning", keep="no.such.layer"),
        step("quantization", keep_in_float="conv1"),
    ],
)
def test_what_was_not_timed_gives_a_sentence_and_no_number(plan: Plan, unknown: Method) -> None:
    found = Predictor(table(plan, int8=2.0, thin=0.5)).expect([unknown])
    assert found.ratio is None
    assert found.why.endswith(".")


@pytest.mark.parametrize("mode", ["dynamic", "fp16", "bf16"])
def test_other_numbers_take_what_they_were_timed_at(plan: Plan, mode: str) -> None:
    pruned, rewritten = step("structured_pruning", amount=0.5), step("quantization", mode=mode)
    predictor = Predictor(table(plan, written=0.8))
    before, found = predictor.expect([pruned]), predictor.expect([pruned, rewritten])
    assert before.ratio is not None
    assert before.size is not None
    assert found.ratio == pytest.approx(0.8 * before.ratio)
    assert found.size == pytest.approx(0.5 * before.size)
    slower = Predictor(table(plan, written=1.1)).expect([rewritten])
    # Half floats are half as large all the same; slower int8 is not handed out.
    assert slower.ratio == pytest.approx(1.0 if mode == "dynamic" else 1.1, rel=0.02)
    assert slower.size == pytest.approx(1.0 if mode == "dynamic" else 0.5)


def test_widths_that_are_not_rounded_take_longer_than_the_next_multiples(plan: Plan) -> None:
    """By hand: twice of what the formula of these tables gives for the network as it was really cut."""
    pruned = step("structured_pruning", amount=0.5, round_to=1)
    found = Predictor(table(plan, odd=2.0)).expect([pruned])
    assert found.macs is not None
    assert found.ratio == pytest.approx(2 * (0.1 + 0.9 * found.macs), rel=0.05)
    assert found.notes == (ODD,)
    assert "multiples of 8" in Predictor(table(plan)).expect([pruned]).why


@pytest.mark.parametrize(
    "settings",
    [
        {"rank_by": "energy", "energy": 0.5},
        {"rank_by": "energy", "energy": 0.8, "round_to": 1},
        {"rank_by": "ratio", "ratio": 0.4, "round_to": 4},
    ],
)
def test_thin_layers_cost_what_the_step_makes_of_them(
    graph: Any, plan: Plan, tmp_path: Path, settings: dict[str, Any]
) -> None:
    chosen = step("low_rank", only_faster=False, recalibrate=False, **settings)
    context = Context(
        Noise((3, 32, 32)),
        Candidate(MODEL, graph),
        RUNTIMES["onnxruntime"](),
        TARGET,
        torch.device("cpu"),
        0,
        tmp_path,
        lambda _: None,
    )
    made = chosen.apply(Candidate(MODEL, graph), context).graph
    assert made is not None
    expected = Predictor(table(plan, thin=0.6)).expect([chosen])
    assert expected.macs == pytest.approx(count_macs(made, MODEL) / count_macs(graph, MODEL), rel=0.01)
    weights = [sum(p.numel() for p in net.parameters()) for net in (made, graph)]
    assert expected.parameters == pytest.approx(weights[0] / weights[1], rel=0.01)


def test_training_takes_epochs_times_samples(plan: Plan) -> None:
    """By hand, with 4 ms of an update and 1 ms of a look at each sample."""
    predictor, samples = Predictor(table(plan)), {"train": 1000, "validation": 200}
    plain = training_seconds([step("fine_tuning", epochs=3)], [], samples, predictor)
    assert plain == pytest.approx(3 * (1000 * 0.004 + 200 * 0.001), rel=0.01)
    taught = training_seconds([step("distillation", epochs=3)], [], samples, predictor)
    assert taught == pytest.approx(3 * (1000 * 0.005 + 200 * 0.001), rel=0.01)
    pruned = step("structured_pruning", amount=0.5, rounds=2, recovery="fine_tuning", recovery_epochs=3)
    kept = predictor.expect([pruned]).macs
    assert kept is not None
    assert training_seconds([pruned], [], samples, predictor) == pytest.approx(
        6 * kept * (1000 * 0.004 + 200 * 0.001), rel=0.01
    )


def test_training_of_what_is_no_plain_epoch(plan: Plan) -> None:
    """By hand: with rounding an update takes 1.5 times as long; heads alone learn from a look."""
    predictor, samples = Predictor(table(plan)), {"train": 1000, "validation": 200}
    rounded = training_seconds([step("quantization", mode="qat", epochs=2)], [], samples, predictor)
    assert rounded == pytest.approx(2 * (1000 * 0.006 + 200 * 0.001), rel=0.01)
    exits = {"head_epochs": 4, "epochs": 3, "distillation": "none"}
    heads, together = 4 * (1000 * 0.001 + 200 * 0.001), 3 * (1000 * 0.004 + 200 * 0.001)
    for training, by_hand in (("heads", heads), ("joint", together), ("two_phase", heads + together)):
        chosen = step("early_exit", training=training, **exits)
        assert training_seconds([chosen], [], samples, predictor) == pytest.approx(by_hand, rel=0.01)
    taught = step("early_exit", training="joint", epochs=3)
    assert training_seconds([taught], [], samples, predictor) == pytest.approx(together + 3.0, rel=0.01)
    other = step("distillation", teacher="architecture")
    assert training_seconds([other], [], samples, predictor) is None
    blocks = step("structured_pruning", amount=0.5, remove_blocks=1, recovery="fine_tuning")
    assert training_seconds([blocks], [], samples, predictor) == pytest.approx(
        3 * (1000 * 0.002 + 200 * 0.0005), rel=0.01
    )


def test_earlier_runs_tell_better_and_of_their_own_kind_alone(plan: Plan) -> None:
    stages = [
        ("fine_tuning", {"epochs": 2}, 30.0, "cpu"),
        ("fine_tuning", {"epochs": 2}, 1.0, "gpu"),
        ("magic", {}, 5.0, "cpu"),
    ]
    found = earlier(stages, "cpu")
    assert found == [Earlier(step("fine_tuning", epochs=2), 30.0)]
    predictor, samples = Predictor(table(plan)), {"train": 1000, "validation": 200}
    assert training_seconds([step("fine_tuning", epochs=6)], found, samples, predictor) == 90.0
    assert training_seconds([step("quantization", mode="qat")], found, samples, None) is None
    assert training_seconds([step("fine_tuning")], [], samples, None) is None
    assert training_seconds([step("quantization")], [], samples, None) == 0.0
