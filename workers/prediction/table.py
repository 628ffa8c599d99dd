"""What is kept of a model on one target: how long its layers take at several widths. Values alone."""

from workers.base import Frozen, Target
from workers.prediction.plan import Plan


class Row(Frozen):
    """A network that was built and timed. All times are shares of the time of the model as it is, in float32.

    left: share of the channels of each group. ratio: of the whole network. layers: of each layer, with what
    comes behind it until the next one; together `ratio`.
    """

    left: dict[str, float]
    ratio: float
    layers: dict[str, float]


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

    int8: none where the model cannot be quantized. device: where `steps` were taken.
    """

    key: str
    target: Target
    plan: Plan
    float32: tuple[Row, ...]
    int8: tuple[Row, ...] = ()
    thin: tuple[ThinRow, ...] = ()
    steps: tuple[Step, ...] = ()
    device: str = "cpu"
    notes: tuple[str, ...] = ()
