"""The questions that a table answers: how long, and how large a file."""

from collections.abc import Mapping

import numpy as np

from workers.prediction.plan import ROUND_TO, Layer, Shares
from workers.prediction.surface import Surface
from workers.prediction.table import Row, Table
from workers.prediction.thinning import Ranks, Thin, cost_of, rounded_ranks


class NotKnown(Exception):
    """The sentence on why there is no number."""


class Times:
    """Of one model on one target. Times and sizes are shares of those of the model as it is, in float32."""

    def __init__(self, table: Table) -> None:
        self.table, self.plan = table, table.plan
        self.float32 = Surface(table.plan, table.float32)
        self.int8 = Surface(table.plan, table.int8) if table.int8 else None

    def in_float32(self, left: Shares, thin: Mapping[str, Thin]) -> float:
        """Raises NotKnown for widths that nothing tells of."""
        ratio = self.float32.ratio(left, {name: layer.time for name, layer in thin.items()})
        if not self.plan.has_odd_widths(left):
            return ratio
        return ratio * self.odd(left)

    def odd(self, left: Shares) -> float:
        """By how much widths that are no multiples of `ROUND_TO` take longer than the next multiples."""
        rows = self.table.odd
        if not rows:
            raise NotKnown(f"Times are known for widths that are multiples of {ROUND_TO}.")
        macs = [self.plan.macs_left(row.left) for row in rows]
        slope, start = (
            np.polyfit(macs, [row.ratio for row in rows], 1) if len(rows) > 1 else (0, rows[0].ratio)
        )
        uneven = float(start + slope * self.plan.macs_left(left))
        share = self.plan.odd_share(left)
        return float((max(uneven, 0.5 * min(row.ratio for row in rows)) / self.float32.ratio(left)) ** share)

    def rewritten(self, mode: str, left: Shares, thin: Mapping[str, Thin]) -> float:
        """In the numbers of a mode of quantization. Raises NotKnown."""
        if thin:
            raise NotKnown(f"Times of thin layers in {_numbers(mode)} are not known before.")
        if mode in ("static", "qat"):
            if self.int8 is None:
                raise NotKnown("There are no times of this model in int8.")
            if self.plan.has_odd_widths(left):
                raise NotKnown(f"Times in int8 are known for widths that are multiples of {ROUND_TO}.")
            return self.int8.ratio(left)
        return self._between(mode, "ratio", left) * self.in_float32(left, thin)

    def _between(self, mode: str, what: str, left: Shares) -> float:
        rows = sorted((w for w in self.table.written if w.mode == mode), key=lambda w: w.macs)
        if not rows:
            raise NotKnown(f"There are no times of this model in {_numbers(mode)}.")
        return float(
            np.interp(self.plan.macs_left(left), [w.macs for w in rows], [getattr(w, what) for w in rows])
        )

    def size(self, parameters: float, mode: str = "") -> float:
        """Of the file. parameters: share that is left. mode: of quantization. Raises NotKnown."""
        if mode in ("static", "qat"):
            return self._line(self.table.int8, parameters)
        size = self._line(self.table.float32, parameters)
        if not mode:
            return size
        rows = [w for w in self.table.written if w.mode == mode]
        if not rows:
            raise NotKnown(f"There is no file of this model in {_numbers(mode)}.")
        return size * max(rows, key=lambda w: w.macs).size

    def _line(self, rows: tuple[Row, ...], parameters: float) -> float:
        if not rows:
            raise NotKnown("There is no file of this model in int8.")
        left = [self.plan.parameters_left(row.left) for row in rows]
        if max(left) - min(left) < 1e-9:
            return rows[0].size
        slope, start = np.polyfit(left, [row.size for row in rows], 1)
        return float(start + slope * parameters)

    def thin(self, layer: Layer, ranks: Ranks) -> Thin:
        """Between the ranks that were timed."""
        first, taken = self.table.float32[0].layers[layer.name], {}
        for row in self.table.thin:
            timed = rounded_ranks(layer, [row.share] * len(ranks), ROUND_TO)
            if timed != layer.full_ranks:
                taken[cost_of(layer, timed)[0]] = row.layers.get(layer.name, 0.0) / first
        macs, weights = cost_of(layer, ranks)
        known = sorted(taken)
        time = float(np.interp(macs, known, [taken[at] for at in known])) if known else 1.0
        return Thin(time, macs, weights)


def _numbers(mode: str) -> str:
    return {"static": "int8", "qat": "int8", "dynamic": "dynamic int8"}.get(mode, mode)
