"""From the timed widths of a table to any others.

Layer by layer, non-negative least squares on what a convolution costs (a constant, its outputs, its inputs,
their product), then a smooth correction towards the rows (kernel ridge regression, Saunders et al. 1998); the
same once more for whole networks. tests/benchmarks/predictor.py holds what else was tried.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from scipy.optimize import nnls

from workers.prediction.plan import Plan, Shares
from workers.prediction.table import Row

#: Channels are computed in blocks, full or not, of as many numbers as the processor takes at once: 16 with
#: AVX-512, else 8 (ONNX Runtime's NCHWc, SIMD kernels). Inputs that fill no block are read one by one.
BLOCKS = (8, 16)
#: Reach of a correction, in shares of channels, and how little rows are trusted against the smooth.
REACH, RIDGE, RIDGE_WHOLE = 0.3, 0.1, 0.05
#: The model as it is must come out right: it counts as so many rows.
WEIGHT_OF_THE_FIRST = 5.0


class Surface:
    """rows: the model as it is comes first."""

    def __init__(self, plan: Plan, rows: Sequence[Row]) -> None:
        self.plan, self.rows = plan, rows
        self.block = min(BLOCKS, key=self._misfit)

    def _misfit(self, block: int) -> float:
        """How far the costs alone stay from the rows' times."""
        costs = self._costs(np.array([self._places(row.left, block) for row in self.rows]))
        return float(
            sum(nnls(costs[:, at], self._times[:, at])[1] ** 2 for at in range(len(self.plan.layers)))
        )

    def ratio(self, left: Shares, factors: Mapping[str, float] | None = None) -> float:
        """Time relative to the model in float32. factors: by which layers are faster or slower."""
        if not self.plan.layers:
            return self.rows[0].ratio
        places = self._places(left, self.block)
        scale = [(factors or {}).get(layer.name, 1.0) for layer in self.plan.layers]
        return float(self._layers(places) @ scale) * self._whole(places)

    def _places(self, left: Shares, block: int) -> np.ndarray:
        """(layers, 2): inputs and outputs that are computed, as shares of those of the model as it is."""
        return np.array(
            [
                (
                    _read(self.plan.inputs_of(layer, left), block) / _read(layer.inputs, block),
                    _filled(self.plan.outputs_of(layer, left), block) / _filled(layer.outputs, block),
                )
                for layer in self.plan.layers
            ]
        )

    def _layers(self, places: np.ndarray) -> np.ndarray:
        """(layers,) shares of time."""
        coefficients, known, weights = self._fitted
        smooth = (self._costs(places) * coefficients).sum(-1)
        near = np.exp(-((known - places) ** 2).sum(-1) / (2 * REACH**2))
        times: np.ndarray = np.maximum(smooth + (near * weights).sum(0), 0.0)
        return times

    def _costs(self, places: np.ndarray) -> np.ndarray:
        """(…, layers, 4): a constant, outputs, inputs, multiply-accumulates."""
        inputs, outputs = places[..., 0], places[..., 1]
        depthwise = np.array([layer.depthwise for layer in self.plan.layers])
        macs = np.where(depthwise, outputs, inputs * outputs)
        return np.stack([np.ones_like(inputs), outputs, inputs, macs], axis=-1)

    @cached_property
    def _known(self) -> np.ndarray:
        """(rows, layers, 2)"""
        return np.array([self._places(row.left, self.block) for row in self.rows])

    @cached_property
    def _times(self) -> np.ndarray:
        """(rows, layers)"""
        return np.array(
            [[row.layers.get(layer.name, 0.0) for layer in self.plan.layers] for row in self.rows]
        )

    @cached_property
    def _fitted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients (layers, 4); of the rows, places (rows, layers, 2) and weights (rows, layers)."""
        known = self._known
        costs = self._costs(known)
        times = self._times
        trust = np.ones(len(self.rows))
        trust[0] = WEIGHT_OF_THE_FIRST
        coefficients = np.array(
            [nnls(costs[:, at] * trust[:, None], times[:, at] * trust)[0] for at in range(times.shape[1])]
        )
        left_over = times - (costs * coefficients).sum(-1)
        near = np.exp(-((known[:, None] - known[None]) ** 2).sum(-1) / (2 * REACH**2))  # rows, rows, layers
        matrices = np.moveaxis(near, -1, 0) + RIDGE * np.eye(len(self.rows))
        weights = np.linalg.solve(matrices, left_over.T[:, :, None])[..., 0].T
        return coefficients, known, weights

    def _whole(self, places: np.ndarray) -> float:
        """By how much the sum of the layers is to be corrected."""
        sizes, weights = self._correction
        near = np.exp(-((sizes - self._sizes(places)) ** 2).mean(-1) / (2 * REACH**2))
        return float(np.exp(near @ weights))

    def _sizes(self, places: np.ndarray) -> np.ndarray:
        return self._costs(places)[..., 3]

    @cached_property
    def _correction(self) -> tuple[np.ndarray, np.ndarray]:
        sums = np.array([self._layers(places).sum() for places in self._known])
        errors = np.log(np.array([row.ratio for row in self.rows]) / sums)
        sizes = self._sizes(self._known)
        near = np.exp(-((sizes[:, None] - sizes[None]) ** 2).mean(-1) / (2 * REACH**2))
        return sizes, np.linalg.solve(near + RIDGE_WHOLE * np.eye(len(sizes)), errors)


def _filled(channels: float, block: int) -> float:
    return float(np.ceil(round(channels, 6) / block)) * block


def _read(channels: float, block: int) -> float:
    return _filled(channels, min(BLOCKS) if channels < block else block)
