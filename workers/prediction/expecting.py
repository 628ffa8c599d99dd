"""What a recipe will lead to, from the table of its model: guessed in milliseconds, for forms."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.base import Method
from workers.methods.quantization import INT8
from workers.prediction.changes import State, changed
from workers.prediction.times import NotKnown, Times

#: Of the time before; by less, times differ from one time to the next.
SLOWER = 1.03


@dataclass(frozen=True)
class Expected:
    """Relative to the model as it is; None where there is no number, and `why` says why there is no ratio.

    macs, parameters: before quantization, which changes neither. size: of the file. against_float: time of
    the quantized file relative to what it was made from, also where that is kept instead (`kept_float`).
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
    slow: tuple[str, ...] = ()
    slower: tuple[str, ...] = ()
    layers: int = 0


class Predictor(Times):
    """A table, ready to be asked. Whoever keeps it saves the fit."""

    def expect(self, steps: Sequence[Method]) -> Expected:
        state = State()
        try:
            for step in steps:
                state = changed(self, step, state)
        except NotKnown as error:
            return Expected(None, None, None, state.notes, str(error))
        return self._of(state)

    def _of(self, state: State) -> Expected:
        ratio, against, why = self._time(state)
        kept = against is not None and against > 1 and _keeps_faster(state)
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
            slow=state.slow,
            slower=tuple(name for name, thin in state.thin.items() if thin.time > SLOWER),
            layers=len(state.thin) + len(state.slow),
        )

    def _time(self, state: State) -> tuple[float | None, float | None, str]:
        """The time, that of the quantized file relative to its float, and why there is none."""
        if state.unknown:
            return None, None, state.unknown
        try:
            ratio = self.in_float32(state.left, state.thin)
            if state.quantized is None:
                return ratio, None, ""
            rewritten = self.rewritten(state.quantized.mode, state.left, state.thin)
        except NotKnown as error:
            return None, None, str(error)
        against = rewritten / ratio
        return (ratio if against > 1 and _keeps_faster(state) else rewritten), against, ""

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


def _keeps_faster(state: State) -> bool:
    """As the method decides: half floats are handed out however long they take."""
    step = state.quantized
    return step is not None and step.keep_faster and step.mode in INT8
