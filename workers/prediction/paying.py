"""What will not pay off where a model is to run: a sentence each, to be read before hours of work.

Times of the model that were taken there tell; where there are none, a rule for what is known of the machine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from workers.base import Method, Runtime
from workers.catalog import RUNTIMES
from workers.methods.distillation import Distillation
from workers.methods.low_rank import LowRank
from workers.methods.quantization import INT8, Quantization
from workers.methods.structured_pruning import StructuredPruning
from workers.prediction.expecting import Expected, Predictor
from workers.prediction.plan import ROUND_TO
from workers.quantization.scheme import X86
from workers.recipe import step_id
from workers.runtimes.onnxruntime import OnnxRuntime

#: Of the time before; what saves less is not called faster.
FASTER = 0.97
#: Of several layers, so many are named.
NAMED = 4

ZEROS = "Zeros make nothing faster on this target: runtimes compute them like any other weight."
ODD = (
    f"Widths that are no multiples of {ROUND_TO} are seldom faster: processors compute channels in blocks. "
    f"Set round_to to {ROUND_TO}."
)
NO_VNNI = (
    "The processor of this target has no VNNI: int8 wins less there, 1.6 to 2.2 times "
    "the speed with ResNets; a MobileNet got slower."
)
OVERFLOWS = (
    "The processor of this target has no VNNI and may overflow with weights of 8 bits, which the machine "
    "that writes the file may choose. Set weight_bits to 7."
)
DYNAMIC = "Dynamic int8 leaves convolutions in float32: nets of convolutions get no faster."
FP16 = "ONNX Runtime computes fp16 in float32 on this target's processor: half the size, but no faster."
BF16 = "ONNX Runtime computes bf16 weights in float32: half the size, but no faster."
THIN = (
    "Thin layers can be slower than those they replace. Set only_faster to true: it times them on this "
    "target."
)
#: Where steps choose by time, if that is not the place to run.
HERE, AT_HOME = "this target", "the machine that does the run"
NO_LAYER = (
    "No layer is expected to be faster as thin layers on this target; the step would end with an error. "
    "Leave it out."
)
NOT_FASTER = "This is not expected to be faster on this target."


@dataclass(frozen=True)
class Machine:
    """Of the place to run, what decides. None where nobody tells. elsewhere: the steps are carried out on
    another machine."""

    runtime: str
    x86: bool | None = None
    vnni: bool | None = None
    elsewhere: bool = False

    @classmethod
    def of(cls, runtime: str, facts: Mapping[str, Any], *, elsewhere: bool = False) -> Self:
        """facts: as a worker tells them, see `workers.host.HostFacts`."""
        system = str(facts.get("system", "")).split()
        x86 = system[-1].lower() in X86 if system else None
        return cls(runtime, x86, facts.get("vnni"), elsewhere)

    @property
    def engine(self) -> type[Runtime] | None:
        """None for several together."""
        return RUNTIMES.get(self.runtime.partition(":")[0])

    def chosen(self, sentence: str) -> str:
        """A sentence on what a step chooses by time, which it does where it is carried out."""
        return sentence.replace(HERE, AT_HOME) if self.elsewhere else sentence

    @property
    def overflows(self) -> bool:
        """With int8 weights of 8 bits."""
        return self.x86 is True and self.vnni is False


def sentences(
    steps: Sequence[Method],
    machine: Machine,
    predictor: Predictor | None,
    chosen_by: Predictor | None = None,
) -> list[str]:
    """predictor: where its times were taken on this machine, in this runtime. chosen_by: see
    `Predictor.expect`."""
    found: list[str] = []
    for number, step in enumerate(steps, start=1):
        rule = _RULES.get(step_id(step))
        if rule is not None:
            found += rule(step, _Asked(steps[:number], machine, predictor, chosen_by))
    if not found and predictor is not None and any(_wants_speed(step) for step in steps):
        ratio = predictor.expect(steps, chosen_by).ratio
        if ratio is not None and ratio >= FASTER:
            found.append(NOT_FASTER)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Asked:
    """steps: up to the one that a rule is about."""

    steps: Sequence[Method]
    machine: Machine
    predictor: Predictor | None
    chosen_by: Predictor | None

    @property
    def expected(self) -> Expected | None:
        return None if self.predictor is None else self.predictor.expect(self.steps, self.chosen_by)

    def ratio_with(self, **changes: object) -> float | None:
        """With other settings in the last step."""
        if self.predictor is None:
            return None
        *before, step = self.steps
        return self.predictor.expect([*before, step.model_copy(update=changes)], self.chosen_by).ratio


def _wants_speed(step: Method) -> bool:
    if isinstance(step, Distillation):
        return step.student != "current"
    return isinstance(step, StructuredPruning | LowRank | Quantization)


def _widths(step: Method, asked: _Asked) -> Iterator[str]:
    assert isinstance(step, StructuredPruning | Distillation)
    makes = isinstance(step, StructuredPruning) or step.student == "narrower"
    if not makes or step.round_to % ROUND_TO == 0:
        return
    odd, rounded = asked.ratio_with(), asked.ratio_with(round_to=ROUND_TO)
    if odd is None or rounded is None:
        yield ODD
    elif odd >= FASTER * rounded:
        yield (
            f"On this target round_to {step.round_to} takes {_times(odd / rounded)} as long as round_to "
            f"{ROUND_TO}, by times of this model."
        )


def _bits(step: Method, asked: _Asked) -> Iterator[str]:
    assert isinstance(step, Quantization)
    runtime, expected = asked.machine.engine, asked.expected
    if runtime is not None and runtime.whole_models_only:
        yield (
            f"{runtime.title} runs the trainable form of a model, and a quantized one has none: it is not "
            "measured there."
        )
        return
    if asked.machine.elsewhere and asked.machine.overflows and step.mode in INT8 and step.weight_bits != 7:
        yield OVERFLOWS
    if expected is None or expected.against_float is None:
        yield from _bits_by_rule(step.mode, asked.machine)
    elif expected.kept_float and expected.against_float < FASTER:
        yield (
            f"On {AT_HOME} {_name(step.mode)} takes {_times(expected.chosen_by or 1)} as long as float32, "
            f"which is kept then, but on this target {expected.against_float:.2f} times as long. Set "
            "keep_faster to false."
        )
    elif expected.against_float >= FASTER:
        kept = expected.kept_float or (step.keep_faster and step.mode in INT8 and not asked.machine.elsewhere)
        told = "float32 is kept where it is faster" if kept else "the file gets smaller, not faster"
        yield (
            f"On this target {_name(step.mode)} takes {_times(expected.against_float)} as long as float32, "
            f"by times of this model; {told}."
        )


def _times(ratio: float) -> str:
    """Of ratios that are no gain, see FASTER."""
    return "about" if ratio < 1 / FASTER else f"{ratio:.2f} times"


def _bits_by_rule(mode: str, machine: Machine) -> Iterator[str]:
    if mode in ("static", "qat") and machine.overflows:
        yield NO_VNNI
    if mode == "dynamic":
        yield DYNAMIC
    if mode == "fp16" and machine.runtime == OnnxRuntime.id() and machine.x86:
        yield FP16
    if mode == "bf16" and machine.runtime == OnnxRuntime.id():
        yield BF16


def _name(mode: str) -> str:
    return mode if mode in ("fp16", "bf16") else "dynamic int8" if mode == "dynamic" else "int8"


def _thin(step: Method, asked: _Asked) -> Iterator[str]:
    assert isinstance(step, LowRank)
    expected = asked.expected
    if expected is None or not expected.layers:
        if not step.depends_on_target:
            yield asked.machine.chosen(THIN)
    elif expected.slower:
        more = len(expected.slower) - NAMED
        names = ", ".join(expected.slower[:NAMED]) + (f" and {more} more" if more > 0 else "")
        advice = "Set only_faster to true."
        if asked.machine.elsewhere:
            advice = f"The step can time them on {AT_HOME} alone."
        yield (
            f"On this target {len(expected.slower)} of {expected.layers} layers would get slower as thin "
            f"layers: {names}. {advice}"
        )
    elif len(expected.slow) == expected.layers:
        yield asked.machine.chosen(NO_LAYER)
    elif expected.slow and step.rank_by == "energy":
        yield asked.machine.chosen(
            f"{len(expected.slow)} of {expected.layers} layers would be left alone: as thin layers they are "
            f"not expected to be faster on {HERE}."
        )


def _early(step: Method, asked: _Asked) -> Iterator[str]:  # noqa: ARG001
    runtime = asked.machine.engine
    if runtime is not None and not runtime.stops_early:
        able = " or ".join(known.title for known in RUNTIMES.values() if known.stops_early)
        yield (
            f"{runtime.title} runs no file that stops early: with exits nothing is measured there. "
            f"Take {able}."
        )


def _zeros(step: Method, asked: _Asked) -> Iterator[str]:  # noqa: ARG001
    yield ZEROS


_RULES: Mapping[str, Callable[[Method, _Asked], Iterator[str]]] = {
    "structured_pruning": _widths,
    "distillation": _widths,
    "quantization": _bits,
    "low_rank": _thin,
    "early_exit": _early,
    "unstructured_pruning": _zeros,
}
