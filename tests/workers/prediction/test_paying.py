"""Sentences on what will not pay off: from times of the target where there are any, else from what it is."""

from typing import Any

import pytest

from tests.workers.prediction.tables import spec, table
from workers.base import Method
from workers.catalog import METHODS
from workers.graph.students import known
from workers.prediction.expecting import Predictor
from workers.prediction.paying import (
    BF16,
    DYNAMIC,
    FP16,
    NO_LAYER,
    NO_VNNI,
    NOT_FASTER,
    ODD,
    OVERFLOWS,
    THIN,
    ZEROS,
    Machine,
    sentences,
)
from workers.prediction.plan import Plan
from workers.prediction.reading import read_plan

OLD, NEW = Machine("onnxruntime", x86=True, vnni=False), Machine("onnxruntime", x86=True, vnni=True)
ELSEWHERE = Machine("onnxruntime", x86=True, vnni=False, elsewhere=True)
ELSEWHERE_NEW = Machine("onnxruntime", x86=True, vnni=True, elsewhere=True)
ARM, NOBODY = Machine("onnxruntime", x86=False, vnni=False), Machine("onnxruntime")


def step(name: str, **settings: Any) -> Method:
    return METHODS[name].model_validate(settings)


@pytest.fixture(scope="module")
def plan() -> Plan:
    model = spec("cifar_resnet8", 32)
    return read_plan(known("cifar_resnet8", model, seed=0), model)[0]


@pytest.mark.parametrize(
    ("chosen", "machine", "told"),
    [
        (step("quantization"), OLD, [NO_VNNI]),
        (step("quantization", mode="qat"), OLD, [NO_VNNI]),
        (step("quantization"), NEW, []),
        (step("quantization"), ELSEWHERE, [OVERFLOWS, NO_VNNI]),
        (step("quantization", weight_bits=7), ELSEWHERE, [NO_VNNI]),
        (step("quantization", mode="fp16"), ELSEWHERE, [FP16]),
        (step("quantization"), ARM, []),  # its integer products do not saturate
        (step("quantization"), NOBODY, []),
        (step("quantization", mode="dynamic"), NEW, [DYNAMIC]),
        (step("quantization", mode="fp16"), NEW, [FP16]),
        (step("quantization", mode="fp16"), ARM, []),
        (step("quantization", mode="fp16"), Machine("onnxruntime:cuda", x86=True, vnni=True), []),
        (step("quantization", mode="bf16"), ARM, [BF16]),
        (step("quantization", mode="bf16"), Machine("openvino", x86=True), []),
        (step("structured_pruning", round_to=4), NEW, [ODD]),
        (step("structured_pruning", round_to=16), NEW, []),
        (step("distillation", student="narrower", round_to=1), NEW, [ODD]),
        (step("distillation", round_to=1), NEW, []),  # the student is as wide as the teacher
        (step("unstructured_pruning"), NEW, [ZEROS]),
        (step("low_rank", rank_by="energy", only_faster=False), NEW, [THIN]),
        (step("low_rank", rank_by="energy"), NEW, []),
        (step("fine_tuning"), OLD, []),
        (step("early_exit"), NEW, []),
        (step("early_exit"), Machine("openvino"), []),
        (step("early_exit"), Machine("fastest"), []),
        (
            step("early_exit"),
            Machine("ncnn"),
            [
                "ncnn runs no file that stops early: with exits nothing is measured there. "
                "Take ONNX Runtime or OpenVINO."
            ],
        ),
        (
            step("quantization"),
            Machine("torch_eager", x86=True, vnni=False),
            [
                "torch eager runs the trainable form of a model, and a quantized one has none: it is not "
                "measured there."
            ],
        ),
    ],
)
def test_rules_where_nothing_was_timed(chosen: Method, machine: Machine, told: list[str]) -> None:
    assert sentences([chosen], machine, None) == told


def test_a_machine_is_what_its_worker_tells() -> None:
    told = {"system": "Linux 6.1 x86_64", "vnni": False}
    assert Machine.of("onnxruntime", told) == OLD
    assert Machine.of("onnxruntime", {"system": "Linux 6.1 aarch64", "vnni": False}) == ARM
    assert Machine.of("onnxruntime", {}) == NOBODY


@pytest.mark.parametrize(
    ("chosen", "slow", "fast"),
    [
        (step("quantization"), {"int8": 0.8}, {"int8": 2.0}),
        (step("quantization", mode="dynamic"), {"written": 1.25}, {"written": 0.5}),
        (step("quantization", mode="fp16"), {"written": 1.25}, {"written": 0.5}),
    ],
)
def test_what_was_timed_replaces_the_rule(
    plan: Plan, chosen: Method, slow: dict[str, float], fast: dict[str, float]
) -> None:
    (told,) = sentences([chosen], OLD, Predictor(table(plan, **slow)))
    assert "takes 1.25 times as long as float32" in told
    assert sentences([chosen], OLD, Predictor(table(plan, **fast))) == []


def test_what_another_machine_decides_is_told_as_its_decision(plan: Plan) -> None:
    slow, fast = (Predictor(table(plan, int8=int8, thin=thin)) for int8, thin in ((0.8, 1.4), (2.0, 0.6)))
    quantized, thin = step("quantization"), step("low_rank", rank_by="energy")
    (told,) = sentences([quantized], ELSEWHERE_NEW, fast, slow)
    assert "int8 takes 1.25 times as long as float32, which is kept then, but on this target 0.50" in told
    assert told.endswith("Set keep_faster to false.")
    (told,) = sentences([quantized], ELSEWHERE_NEW, slow, fast)
    assert told.endswith("the file gets smaller, not faster.")
    (told,) = sentences([thin], ELSEWHERE_NEW, fast, slow)
    assert told == NO_LAYER.replace("this target", "the machine that does the run")
    (told,) = sentences([thin], ELSEWHERE_NEW, slow, fast)
    assert "layers would get slower" in told
    assert "only_faster" not in told


def test_what_changes_nothing_is_told_without_a_number(plan: Plan) -> None:
    (told,) = sentences([step("quantization")], OLD, Predictor(table(plan, int8=1.0)))
    assert "int8 takes about as long as float32" in told


def test_odd_widths_are_held_against_rounded_ones(plan: Plan) -> None:
    """By hand: in these tables a tenth of the time stays and the rest is multiply-accumulates."""
    odd, rounded = (step("structured_pruning", round_to=to) for to in (1, 8))
    slow, fast = (Predictor(table(plan, odd=times)) for times in (1.25, 0.5))
    macs = [slow.expect([chosen]).macs or 0.0 for chosen in (odd, rounded)]
    times = 1.25 * (0.1 + 0.9 * macs[0]) / (0.1 + 0.9 * macs[1])
    (told,) = sentences([odd], NEW, slow)
    assert float(told.split("takes ")[1].split()[0]) == pytest.approx(times, rel=0.05)
    assert sentences([odd], NEW, fast) == []
    assert sentences([rounded], NEW, slow) == []


def test_thin_layers_that_get_slower_are_counted_and_named(plan: Plan) -> None:
    every, faster = (step("low_rank", rank_by="energy", only_faster=only) for only in (False, True))
    slow, fast = Predictor(table(plan, thin=1.4)), Predictor(table(plan, thin=0.6))
    (told,) = sentences([every], NEW, slow)
    assert "layers would get slower" in told
    assert "layer3.0.conv2" in told or "and" in told
    assert sentences([faster], NEW, slow) == [NO_LAYER]
    assert not any("slower" in told for told in sentences([every], NEW, fast))


def test_a_recipe_that_gains_nothing_is_told(plan: Plan) -> None:
    little = step("structured_pruning", amount=0.01)
    predictor = Predictor(table(plan))
    assert predictor.expect([little]).ratio is not None
    much = step("structured_pruning", amount=0.5)
    assert sentences([much], NEW, predictor) == []
    assert sentences([step("fine_tuning")], NEW, predictor) == []
    kept = step("structured_pruning", amount=0.5, keep="*")
    assert sentences([kept], NEW, predictor) == [NOT_FASTER]
