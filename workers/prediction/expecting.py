"""What a recipe will lead to, from the table of its model: guessed in milliseconds, for forms."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.base import Method
from workers.methods.low_rank import LowRank
from workers.methods.quantization import INT8, Quantization
from workers.methods.structured_pruning import StructuredPruning
from workers.prediction.changes import State, changed
from workers.prediction.times import NotKnown, Times

#: Of the time before; by less, times differ from one time to the next.
SLOWER = 1.03


@dataclass(frozen=True)
class Expected:
    """Relative to the model as it is; None where there is no number, and `why` says why there is no ratio.

    macs, parameters: before quantization, which changes neither. size: of the file. against_float: time of
    the quantized file relative to what it was made from, also where that is kept instead (`kept_float`);
    chosen_by: the same on the machine that decides it, None where nothing is decided.
    slow: layers that factorising would leave alone, out of
    `layers` that it tries; slower: that it would make slower.
    """

    ratio: float | None
    macs: float | None
    parameters: float | None
    notes: tuple[str, ...] = ()
    why: str = ""
    size: float | None = None
    against_float: float | None = None
    kept_float: bool = False
    chosen_by: float | None = None
    slow: tuple[str, ...] = ()
    slower: tuple[str, ...] = ()
    layers: int = 0


class Predictor(Times):
    """A table, ready to be asked. Whoever keeps it saves the fit."""

    def expect(self, steps: Sequence[Method], chosen_by: Times | None = None) -> Expected:
        """chosen_by: times of the machine that carries the steps out, where that is another one: widths,
        ranks and whether float32 is kept are decided there."""
        state, by = State(), chosen_by or self
        try:
            for step in steps:
                state = changed(self, step, state, by)
        except NotKnown as error:
            return Expected(None, None, None, state.notes, str(error))
        return self._of(state, by)

    def _of(self, state: State, by: Times) -> Expected:
        ratio, against, decided, why = self._time(state, by)
        kept = decided is not None and decided > 1
        macs, parameters = self._costs(state)
        return Expected(
            ratio=ratio,
            macs=macs,
            parameters=parameters,
            notes=state.notes if ratio is not None else (),
            why=why,
            size=self._size(state, parameters, kept=kept),
            against_float=against,
            kept_float=kept,
            chosen_by=decided,
            slow=state.slow,
            slower=tuple(name for name, thin in state.thin.items() if thin.time > SLOWER),
            layers=len(state.thin) + len(state.slow),
        )

    def _time(self, state: State, by: Times) -> tuple[float | None, float | None, float | None, str]:
        """The time, that of the quantized file relative to its float, here and where one of them is chosen,
        and why there is none."""
        step = state.quantized
        if state.unknown:
            return None, None, None, state.unknown
        try:
            ratio = self.in_float32(state.left, state.thin)
            if step is None:
                return ratio, None, None, ""
            rewritten = self.rewritten(step.mode, state.left, state.thin)
            decided = None
            if chooses_by_time(step):
                decided = by.rewritten(step.mode, state.left, state.thin) / by.in_float32(
                    state.left, state.thin
                )
        except NotKnown as error:
            return None, None, None, str(error)
        kept = decided is not None and decided > 1
        return ratio if kept else rewritten, rewritten / ratio, decided, ""

    def _costs(self, state: State) -> tuple[float, float]:
        """Shares of the multiply-accumulates and parameters that are left."""
        plan, macs, parameters = (
            self.plan,
            self.plan.macs_left(state.left),
            self.plan.parameters_left(state.left),
        )
        for name, thin in state.thin.items():
            layer = plan.by_name[name]
            macs += (thin.macs - layer.macs) / max(plan.macs, 1)
            parameters += (thin.weights - layer.weights) / max(plan.parameters, 1)
        return macs, parameters

    def _size(self, state: State, parameters: float, *, kept: bool) -> float | None:
        quantized = state.quantized
        try:
            return self.size(parameters, quantized.mode if quantized is not None and not kept else "")
        except NotKnown:
            return None


def chooses_by_time(step: Method) -> bool:
    """Whether times of the machine that carries it out decide how long its result takes.

    Half floats are handed out however long they take; where exits lie is not in a guess.
    """
    if isinstance(step, Quantization):
        return step.keep_faster and step.mode in INT8
    return isinstance(step, StructuredPruning | LowRank) and step.depends_on_target
