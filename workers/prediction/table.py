"""What is kept of a model on one target: how long its layers take at several widths. Values alone."""

from workers.base import Frozen, Target
from workers.prediction.plan import Plan


class Row(Frozen):
    """A network that was built and timed. All times are shares of the time of the model as it is, in float32.

    left: share of the channels of each group. ratio: of the whole network. layers: of each layer, with what
    comes behind it until the next one; together `ratio`. size: of its file, as a share of that of the model
    as it is.
    """

    left: dict[str, float]
    ratio: float
    layers: dict[str, float]
    size: float


class Written(Frozen):
    """The network in other numbers. macs: share that is left. ratio: of the time of the same network in
    float32. size: of its file, likewise.
    """

    mode: str
    macs: float
    ratio: float
    size: float


class ThinRow(Frozen):
    """The network with every layer factorised that can be, at `share` of the full rank; as in `Row`."""

    share: float
    layers: dict[str, float]


class Step(Frozen):
    """Seconds per sample of an update of the weights, and of a look. macs: share that is left."""

    macs: float
    update: float
    look: float


class Table(Frozen):
    """key: of everything it depends on. float32: the row of the model as it is comes first.

    int8: none where the model cannot be quantized. odd: in float32, with widths that are no multiples of
    `ROUND_TO`. written: in the other modes of quantization. steps: none for machines that train nothing.
    device: where steps were taken. rounded: by how much an update takes longer with the rounding of int8 in
    it; None where it was not timed.
    """

    key: str
    target: Target
    plan: Plan
    float32: tuple[Row, ...]
    int8: tuple[Row, ...] = ()
    odd: tuple[Row, ...] = ()
    written: tuple[Written, ...] = ()
    thin: tuple[ThinRow, ...] = ()
    steps: tuple[Step, ...] = ()
    rounded: float | None = None
    device: str = "cpu"
    notes: tuple[str, ...] = ()
