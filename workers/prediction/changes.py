"""What the steps of a recipe do to a network's widths and ranks, one function per method, by its id.

A method without one, and settings whose result is not known before, give no number but a sentence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from workers.base import Method
from workers.errors import StepFailed
from workers.graph.naming import named_layers
from workers.methods.distillation import Distillation
from workers.methods.low_rank import TIMED_SHARES, LowRank
from workers.methods.quantization import Quantization
from workers.methods.structured_pruning import StructuredPruning
from workers.prediction.plan import Layer, Shares
from workers.prediction.thinning import Ranks, Thin, cost_of, energy_shares, rounded_ranks
from workers.prediction.times import NotKnown, Times
from workers.pruning.costs import COSTS
from workers.recipe import step_id

EXITS = "Of the whole way to the end; early exits are not in it."
OTHER = "Guessed as if the L2 norm chose the channels; this importance may choose others."
ODD = "Roughly: few networks with widths that are no multiples of 8 were timed."
UNFOLLOWED = "The channels of this architecture cannot be followed: none can go."
THIN_AND_NARROW = "Times of thin layers with fewer channels are not known before."


@dataclass(frozen=True)
class State:
    """left: of every group of channels. thin: what layers became that were factorised. slow: those that would
    be slower, or need as much. quantized: the step that did it. unknown: why there is no time.
    """

    left: Shares = field(default_factory=dict)
    thin: Mapping[str, Thin] = field(default_factory=dict)
    slow: tuple[str, ...] = ()
    quantized: Quantization | None = None
    notes: tuple[str, ...] = ()
    unknown: str = ""


def changed(times: Times, step: Method, state: State, by: Times) -> State:
    """Raises NotKnown where not even the widths are known.

    by: whose times a step chooses by that does: those of the machine that carries it out.
    """
    change = _CHANGES.get(step_id(step))
    if change is None:
        raise NotKnown(f"What {step.title} leads to is not known before.")
    return change(times, step, state, by)


def _pruned(times: Times, step: Method, state: State, by: Times) -> State:
    assert isinstance(step, StructuredPruning)
    if step.remove_blocks:
        raise NotKnown("Which residual blocks go is found out during the run.")
    if not times.plan.groups:
        raise NotKnown(UNFOLLOWED)
    if state.thin:
        raise NotKnown(THIN_AND_NARROW)
    if step.layer_amounts:
        raise NotKnown("Shares of single layers are not guessed.")
    plan, steps = times.plan, COSTS[step.amount_of].steps
    try:
        keep = named_layers(step.keep, list(plan.by_name), where="keep", what="convolution or linear layer")
    except StepFailed as error:
        raise NotKnown(error.what) from error

    def narrowed(number: int) -> dict[str, float]:
        return plan.narrowed(
            number / steps,
            step.round_to,
            before=state.left,
            scope=step.scope,
            importance=step.importance,
            keep=keep,
        )

    measure: Mapping[str, Callable[[Shares], float]] = {
        "macs": plan.macs_left,
        "parameters": plan.parameters_left,
        "latency": lambda left: by.in_float32(left, {}),
    }
    cost = measure[step.amount_of]
    limit = (1 - step.amount) * cost(state.left)
    # As `workers.pruning.search` looks for it.
    low, high = 0, steps - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(narrowed(middle)) <= limit else (middle, high)
    left = narrowed(high)
    known = step.scope == "uniform" or plan.tells(step.importance)
    told = (*(() if known else (OTHER,)), *((ODD,) if plan.has_odd_widths(left) else ()))
    return replace(state, left=left, notes=(*state.notes, *told))


def _factorised(times: Times, step: Method, state: State, by: Times) -> State:
    """Layer by layer the share of its time that its parts take, between the shares that were timed."""
    assert isinstance(step, LowRank)
    if state.left or state.thin:
        raise NotKnown(THIN_AND_NARROW)
    if not (times.table.thin and by.table.thin):
        raise NotKnown("There are no times of this model with thin layers.")
    first, thin, slow = [known.table.float32[0].layers for known in (times, by)], {}, []
    for layer in times.plan.layers:
        if layer.thin and all(took.get(layer.name) for took in first):
            found = _thin(times, step, layer, by)
            if found is None:
                slow.append(layer.name)
            else:
                thin[layer.name] = found
    return replace(state, thin=thin, slow=tuple(slow))


def _thin(times: Times, step: LowRank, layer: Layer, by: Times) -> Thin | None:
    """None where the layer is left alone."""
    limit = step.time if step.rank_by == "time" else 1.0 if step.only_faster else float("inf")
    for ranks in _ranks(step, layer):
        cheaper = ranks != layer.full_ranks and cost_of(layer, ranks)[0] < layer.macs
        if cheaper and by.thin(layer, ranks).time <= limit:
            return times.thin(layer, ranks)
    return None


def _ranks(step: LowRank, layer: Layer) -> list[Ranks]:
    """Those that are tried, largest first."""
    if step.rank_by == "energy":
        if not layer.energies:
            raise NotKnown("How much energy its ranks keep is found out during the run.")
        return [rounded_ranks(layer, energy_shares(layer, step.energy), step.round_to)]
    shares = TIMED_SHARES if step.rank_by == "time" else (step.ratio,)
    return [rounded_ranks(layer, [share] * len(layer.full_ranks), step.round_to) for share in shares]


def _distilled(times: Times, step: Method, state: State, by: Times) -> State:  # noqa: ARG001
    assert isinstance(step, Distillation)
    if step.student == "current":
        return state
    if step.student != "narrower" or state.thin:
        raise NotKnown("The time of such a student is not known before.")
    if not times.plan.groups:
        raise NotKnown(UNFOLLOWED)
    left = times.plan.narrowed(1 - step.width, step.round_to, before=state.left, upwards=True)
    odd = (ODD,) if times.plan.has_odd_widths(left) else ()
    return replace(state, left=left, notes=(*state.notes, *odd))


def _quantized(times: Times, step: Method, state: State, by: Times) -> State:  # noqa: ARG001
    assert isinstance(step, Quantization)
    unknown = "Layers that stay in float are not guessed." if step.keep_in_float else state.unknown
    return replace(state, quantized=step, unknown=unknown)


def _the_same(times: Times, step: Method, state: State, by: Times) -> State:  # noqa: ARG001
    """Other weights take as long, zeros among them."""
    return state


def _with_exits(times: Times, step: Method, state: State, by: Times) -> State:  # noqa: ARG001
    return replace(state, notes=(*state.notes, EXITS))


_CHANGES: Mapping[str, Callable[[Times, Method, State, Times], State]] = {
    "structured_pruning": _pruned,
    "low_rank": _factorised,
    "distillation": _distilled,
    "quantization": _quantized,
    "early_exit": _with_exits,
    "fine_tuning": _the_same,
    "unstructured_pruning": _the_same,
}
