"""Which cell is best, on a table made by hand."""

import pytest

from workers.throughput.grid import Cell, Way, best_under, front, ways


def cell(streams: int, threads: int, batch: int, rate: float, p90: float, p99: float | None = None) -> Cell:
    way = Way(threads=threads, streams=streams, batch=batch)
    return Cell(way=way, calls=700 if p99 else 50, samples_per_s=rate, p90_ms=p90, p99_ms=p99)


QUICK = cell(1, 2, 1, 500, 2.0, 2.4)
MIDDLE = cell(2, 1, 4, 1500, 4.1, 6.0)
WIDE = cell(2, 1, 32, 2400, 26.0)
POOR = cell(1, 1, 32, 1200, 27.0)
UNSEEN = Cell(way=Way(threads=1, streams=1, batch=2))
TABLE = [QUICK, MIDDLE, WIDE, POOR, UNSEEN]


@pytest.mark.parametrize(
    ("limit_ms", "best"),
    [
        (None, WIDE),
        (26.0, WIDE),  # no p99: its p90 counts
        (25.9, MIDDLE),
        (6.0, MIDDLE),
        (5.0, QUICK),  # MIDDLE's p90 would do, its p99 does not
        (2.3, None),
    ],
)
def test_best_under_a_limit(limit_ms: float | None, best: Cell | None) -> None:
    assert best_under(TABLE, limit_ms) == best


def test_nothing_measured_has_no_best() -> None:
    assert best_under([UNSEEN], None) is None


def test_the_front_has_the_best_of_every_limit_and_close_ones() -> None:
    close = cell(1, 1, 4, 1400, 5.9, 6.0)  # within a tenth of MIDDLE at the same latency
    found = front([*TABLE, close])
    assert found == [QUICK, MIDDLE, WIDE, close]
    assert all(best_under([*TABLE, close], limit) in (None, *found) for limit in (2.0, 2.5, 5, 6, 26, 100))


@pytest.mark.parametrize(
    ("cores", "pairs"),
    [
        (1, {(1, 1)}),
        (2, {(1, 1), (1, 2), (2, 1)}),
        (6, {(1, 1), (1, 2), (1, 4), (1, 6), (2, 1), (2, 2), (4, 1), (6, 1)}),
    ],
)
def test_ways_fill_the_cores_and_never_more(cores: int, pairs: set[tuple[int, int]]) -> None:
    found = ways(cores, (1, 8))
    assert {(way.threads, way.streams) for way in found} == pairs
    assert len(found) == len(set(map(str, found))) == 2 * len(pairs)
