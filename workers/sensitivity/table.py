"""What a sensitivity analysis holds: one row per layer, one cell per thing that was done to it alone."""

from collections.abc import Iterable

from pydantic import Field

from workers.base import Frozen

SHARES = (0.25, 0.5, 0.75)
INT8 = "int8"


def pruned_by(share: float) -> str:
    """Name of a column: 25 %"""
    return f"{100 * share:g}\u00a0%"


class Cell(Frozen):
    """One layer changed in one way, the rest of the network as it was.

    change: INT8, or the share of its channels that is gone, as `pruned_by` writes it. share: that share; None
    for INT8. accuracy: of the samples of the table. divergence: mean Kullback-Leibler divergence of the
    answers from those of the unchanged network. ratio: its time to that of the unchanged file; None where the
    time for timing was over. why: nothing was measured, for this reason.
    """

    change: str
    share: float | None = None
    accuracy: float = 0.0
    divergence: float = 0.0
    ratio: float | None = None
    why: str = ""


class Row(Frozen):
    """One layer. root: the layer that its channels go with; "" where they cannot be pruned, its own name
    where it is pruned in this row. coupled: what else gets narrower with it.
    """

    layer: str
    root: str = ""
    coupled: tuple[str, ...] = ()
    width: int
    cells: tuple[Cell, ...] = ()

    def cell(self, change: str) -> Cell | None:
        return next((cell for cell in self.cells if cell.change == change), None)


class Asked(Frozen):
    """What an analysis is asked for."""

    samples: int = Field(512, ge=16, le=100_000, description="Validation samples that answers are taken on.")
    timing_seconds: float = Field(
        300, ge=0, le=86_400, description="For all timing together; what is left then has no time."
    )


class Table(Frozen):
    """accuracy: of the unchanged network on the samples. timed_s: seconds that timing took so far.

    whole: False while rows are still to come.
    """

    accuracy: float
    samples: int
    rows: tuple[Row, ...] = ()
    timed_s: float = 0.0
    notes: tuple[str, ...] = ()
    whole: bool = False

    def row(self, layer: str) -> Row | None:
        return next((row for row in self.rows if row.layer == layer), None)


def ordered(rows: Iterable[Row], layers: Iterable[str]) -> tuple[Row, ...]:
    """In the order of the network."""
    known = {row.layer: row for row in rows}
    return tuple(known[layer] for layer in layers if layer in known)
