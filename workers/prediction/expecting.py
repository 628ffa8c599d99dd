"""What a recipe will lead to, from the table of its model: guessed in milliseconds, for forms.

One function per method, by its id; a method without one, and settings whose result is not known before, give
no number but a sentence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from workers.base import Method
from workers.errors import StepFailed
from workers.graph.naming import named_layers
from workers.methods.distillation import Distillation
from workers.methods.low_rank import TIMED_SHARES, LowRank
from workers.methods.quantization import Quantization
from workers.methods.structured_pruning import StructuredPruning
from workers.prediction.plan import ROUND_TO, Shares
from workers.prediction.surface import Surface
from workers.prediction.table import Table
from workers.pruning.costs import COSTS
from workers.recipe import step_id

EXITS = "Of the whole way to the end; early exits are not in it."
OTHER = "Guessed as if the L2 norm chose the channels; this importance may choose others."
UNFOLLOWED = "The channels of this architecture cannot be followed: none can go."
FLOAT = "Int8 is expected to be slower; the float model would be kept."


class NotKnown(Exception):
    """The sentence on why there is no number."""


@dataclass(frozen=True)
class Expected:
    """Relative to the model as it is; None where there is no number, and `why` says why.

    macs, parameters: before quantization, which changes neither.
    """

    ratio: float | None
    macs: float | None
    parameters: float | None
    notes: tuple[str, ...] = ()
    why: str = ""


class Predictor:
    """A table, ready to be asked. Whoever keeps it saves the fit."""

    def __init__(self, table: Table) -> None:
        self.table, self.plan = table, table.plan
        self.float32 = Surface(table.plan, table.float32)
        self.int8 = Surface(table.plan, table.int8) if table.int8 else None

    def expect(self, steps: Sequence[Method]) -> Expected:
        state = _State()
        try:
            for step in steps:
                change = _CHANGES.get(step_id(step))
                if change is None:
                    raise NotKnown(f"What {step.title} leads to is not known before.")
                state = change(self, step, state)
            return self._of(state)
        except NotKnown as error:
            return Expected(None, None, None, why=str(error))

    def _of(self, state: "_State") -> Expected:
        notes, ratio = state.notes, self.float32.ratio(state.left, state.factors)
        if state.int8 is not None:
            in_int8 = self._in_int8(state)
            if in_int8 > ratio and state.int8.keep_faster:
                notes = (*notes, FLOAT)
            else:
                ratio = in_int8
        if state.factors:  # how many multiply-accumulates thin layers need depends on their ranks
            return Expected(ratio, None, None, notes)
        return Expected(ratio, self.plan.macs_left(state.left), self.plan.parameters_left(state.left), notes)

    def _in_int8(self, state: "_State") -> float:
        if self.int8 is None:
            raise NotKnown("There are no times of this model in int8.")
        return self.int8.ratio(state.left)


@dataclass(frozen=True)
class _State:
    """left: of every group of channels. factors: by which layers got faster. int8: the step that did it."""

    left: Shares = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    int8: Quantization | None = None
    notes: tuple[str, ...] = ()


def _pruned(predictor: Predictor, step: Method, state: _State) -> _State:
    assert isinstance(step, StructuredPruning)
    if step.remove_blocks:
        raise NotKnown("Which residual blocks go is found out during the run.")
    if step.round_to % ROUND_TO:
        raise NotKnown(f"Times are known for widths that are multiples of {ROUND_TO}.")
    if state.factors:
        raise NotKnown("Times of thin layers with fewer channels are not known before.")
    if step.layer_amounts:
        raise NotKnown("Shares of single layers are not guessed.")
    if not predictor.plan.groups:
        raise NotKnown(UNFOLLOWED)
    plan, steps = predictor.plan, COSTS[step.amount_of].steps
    try:
        keep = named_layers(step.keep, list(plan.by_name), where="keep", what="convolution or linear layer")
    except StepFailed as error:
        raise NotKnown(error.what) from error

    def narrowed(number: int) -> dict[str, float]:
        return plan.narrowed(number / steps, step.round_to, before=state.left, scope=step.scope, keep=keep)

    measure: Mapping[str, Callable[[Shares], float]] = {
        "macs": plan.macs_left,
        "parameters": plan.parameters_left,
        "latency": predictor.float32.ratio,
    }
    cost = measure[step.amount_of]
    limit = (1 - step.amount) * cost(state.left)
    # As `workers.pruning.search` looks for it.
    low, high = 0, steps - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(narrowed(middle)) <= limit else (middle, high)
    by_norm = step.scope == "uniform" or step.importance == "l2"
    return replace(state, left=narrowed(high), notes=state.notes if by_norm else (*state.notes, OTHER))


def _factorised(predictor: Predictor, step: Method, state: _State) -> _State:
    """Layer by layer the share of its time that its parts take, between the shares that were timed."""
    assert isinstance(step, LowRank)
    if step.rank_by == "energy":
        raise NotKnown("Ranks that keep an energy are found out during the run.")
    if state.left:
        raise NotKnown("Times of thin layers with fewer channels are not known before.")
    first = predictor.table.float32[0].layers
    factors = {}
    for layer in predictor.plan.layers:
        if not layer.thin or not first.get(layer.name):
            continue
        taken = {
            row.share: row.layers.get(layer.name, 0.0) / first[layer.name] for row in predictor.table.thin
        }
        tried = TIMED_SHARES if step.rank_by == "time" else (step.ratio,)
        limit = step.time if step.rank_by == "time" else 1.0 if step.only_faster else float("inf")
        factor = next((f for share in tried if (f := _between(taken, share)) <= limit), 1.0)
        factors[layer.name] = factor * state.factors.get(layer.name, 1.0)
    return replace(state, factors=factors)


def _between(taken: Mapping[float, float], share: float) -> float:
    shares = sorted(taken)
    return float(np.interp(share, shares, [taken[s] for s in shares]))


def _distilled(predictor: Predictor, step: Method, state: _State) -> _State:
    assert isinstance(step, Distillation)
    if step.student == "current":
        return state
    if step.student != "narrower" or state.factors:
        raise NotKnown("The time of such a student is not known before.")
    if step.round_to % ROUND_TO:
        raise NotKnown(f"Times are known for widths that are multiples of {ROUND_TO}.")
    if not predictor.plan.groups:
        raise NotKnown(UNFOLLOWED)
    left = predictor.plan.narrowed(1 - step.width, step.round_to, before=state.left, upwards=True)
    return replace(state, left=left)


def _quantized(predictor: Predictor, step: Method, state: _State) -> _State:  # noqa: ARG001
    assert isinstance(step, Quantization)
    if step.keep_in_float:
        raise NotKnown("Layers that stay in float are not guessed.")
    if step.mode not in ("static", "qat"):
        raise NotKnown(f"The time of mode {step.mode} is not known before.")
    if state.factors:
        raise NotKnown("Times of thin layers in int8 are not known before.")
    return replace(state, int8=step)


def _the_same(predictor: Predictor, step: Method, state: _State) -> _State:  # noqa: ARG001
    """Other weights take as long, zeros among them."""
    return state


def _with_exits(predictor: Predictor, step: Method, state: _State) -> _State:  # noqa: ARG001
    return replace(state, notes=(*state.notes, EXITS))


_CHANGES: Mapping[str, Callable[[Predictor, Method, _State], _State]] = {
    "structured_pruning": _pruned,
    "low_rank": _factorised,
    "distillation": _distilled,
    "quantization": _quantized,
    "early_exit": _with_exits,
    "fine_tuning": _the_same,
    "unstructured_pruning": _the_same,
}
