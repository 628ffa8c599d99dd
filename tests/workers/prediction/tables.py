"""Tables without a clock: what layers would take if time followed a formula."""

from collections.abc import Callable, Sequence

from workers.base import ImagePreprocessing, ModelSpec, Target
from workers.prediction.plan import Layer, Plan, Shares
from workers.prediction.table import Row, Step, Table, ThinRow, Written

TARGET = Target(host="3f2a91bc", runtime="onnxruntime", device="cpu", version="1", threads=1)


def spec(name: str, size: int) -> ModelSpec:
    preprocessing = ImagePreprocessing(channels=3, height=size, width=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    return ModelSpec(name=name, sha256="0" * 64, architecture=name, classes=10, preprocessing=preprocessing)


def overhead_and_macs(plan: Plan, layer: Layer, left: Shares) -> float:
    """A tenth of each layer's time stays, the rest follows its multiply-accumulates."""
    share = layer.macs / sum(layer.macs for layer in plan.layers)
    return share * (0.1 + 0.9 * plan.kept_of(layer, left))


def row(plan: Plan, left: Shares, time: Callable[[Plan, Layer, Shares], float] = overhead_and_macs) -> Row:
    layers = {layer.name: time(plan, layer, left) for layer in plan.layers}
    ratio = sum(layers.values())
    return Row(left=dict(left), ratio=ratio, layers=layers, size=0.1 + 0.9 * plan.parameters_left(left))


def table(
    plan: Plan,
    *,
    int8: float | None = None,
    thin: float | None = None,
    odd: float | None = None,
    written: float | None = None,
) -> Table:
    """int8: by how much all is faster in it, and its file is a quarter. thin: share of its time that every
    layer takes at half rank. odd: by how much widths that are not rounded take longer. written: share of its
    time that it takes in other numbers, and its file is half as large.
    """
    shares: Sequence[float] = (0.0, 0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875)
    rows = [row(plan, plan.narrowed(share, 8)) for share in shares]
    uneven = [row(plan, plan.narrowed(share, 1)) for share in (0.45, 0.2)]
    halves = {name: time * (thin or 1) for name, time in rows[0].layers.items()}
    return Table(
        key="k",
        target=TARGET,
        plan=plan,
        float32=tuple(rows),
        int8=tuple(_scaled(r, 1 / int8, 0.25) for r in rows) if int8 else (),
        odd=tuple(_scaled(r, odd, 1.0) for r in uneven) if odd else (),
        written=tuple(
            Written(mode=mode, macs=macs, ratio=written, size=0.5)
            for mode in ("dynamic", "fp16", "bf16")
            for macs in (1.0, 0.5)
        )
        if written
        else (),
        thin=(ThinRow(share=0.5, layers=halves),) if thin else (),
        steps=(Step(macs=1.0, update=0.004, look=0.001), Step(macs=0.5, update=0.002, look=0.0005)),
        rounded=1.5,
    )


def _scaled(row: Row, time: float, size: float) -> Row:
    layers = {name: time * share for name, share in row.layers.items()}
    return Row(left=row.left, ratio=time * row.ratio, layers=layers, size=size * row.size)
