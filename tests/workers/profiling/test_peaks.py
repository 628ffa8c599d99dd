"""The roofs: a formula by hand, and a machine that does what it can."""

import time

import numpy as np
import pytest

from workers.profiling import peaks
from workers.profiling.peaks import Peaks, measure_peaks

FOUND = Peaks(gflops={"float32": 100.0, "int8": 400.0}, gbytes=((1000, 50.0), (8000, 10.0)))


@pytest.mark.parametrize(
    ("macs", "moved", "precision", "roof_ms"),
    [
        (1e6, 100, "float32", 2e6 / 100e9 * 1e3),  # arithmetic
        (1e6, 100, "int8", 2e6 / 400e9 * 1e3),
        (10, 1000, "float32", 1000 / 50e9 * 1e3),  # bytes, from a cache
        (10, 1001, "float32", 1001 / 10e9 * 1e3),  # too many for it
        (10, 99999, "float32", 99999 / 10e9 * 1e3),
        (1e6, 100, "float16", 2e6 / 100e9 * 1e3),  # no peak of its own
    ],
)
def test_the_roof_is_the_larger_of_both_times(
    macs: float, moved: float, precision: str, roof_ms: float
) -> None:
    assert FOUND.roof_ms(macs, moved, precision) == pytest.approx(roof_ms)


def test_what_is_measured_is_what_this_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "SIDE", 256)
    monkeypatch.setattr(peaks, "COPIES", (64 << 10, 4 << 20))
    monkeypatch.setattr(peaks, "TURN_S", 0.01)
    found = measure_peaks()
    source, start = np.ones(4 << 20, np.uint8), time.perf_counter()
    for _ in range(20):
        source.copy()
    # Read and written; the machine may be busy, and a fresh copy costs pages.
    assert found.gbytes[1][1] > 0.5 * 20 * 2e-9 * len(source) / (time.perf_counter() - start)
    assert found.gbytes[1][0] == 8 << 20
    assert 0.1 < found.gflops["float32"] < 10_000
    assert 0.1 < found.gflops["int8"] < 100_000
