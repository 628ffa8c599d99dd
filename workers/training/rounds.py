"""Trainings one after the other within a step, told as one."""

from collections.abc import Mapping


def counted_on(values: Mapping[str, float], epochs: int) -> Mapping[str, float]:
    """A point of a training that comes after `epochs` of others, as a point of the whole curve.

    A later training's start is no point: its place is that of the last epoch before it.
    """
    if not epochs or "epoch" not in values:
        return values
    return {**values, "epoch": values["epoch"] + epochs} if values["epoch"] else {}
