"""Numbers as they are written on every page: unit, fixed decimals, interval, a real minus sign."""

import math
import time
from collections.abc import Iterable

from workers.base import Target

#: A space at which no line is broken.
NARROW = "\u00a0"


def share(value: float | None, digits: int = 1) -> str:
    """0.912 -> 91.2 %"""
    return "–" if value is None else f"{100 * value:.{digits}f}{NARROW}%"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares: −0.4 points."""
    value = round(100 * difference, digits)
    return f"{value:+.{digits}f} points".replace("-", "−") if value else f"{0:.{digits}f} points"


def change(before: float, after: float) -> str:
    """Of a size or a count, in percent: −48 %."""
    percent = round(100 * (after / before - 1)) if before else 0
    return f"{percent:+d}{NARROW}%".replace("-", "−") if percent else "equal"


def faster(ratio: float | None) -> str:
    """A latency relative to another one: 2.3x faster."""
    if ratio is None or ratio <= 0:
        return "–"
    if round(max(ratio, 1 / ratio), 1) == 1:
        return "as fast"
    return f"{1 / ratio:.1f}x faster" if ratio <= 1 else f"{ratio:.1f}x slower"


def milliseconds(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """3.1 ms ± 0.1; the larger side of the interval is told."""
    if value is None:
        return "–"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3
    if low is None or high is None:
        return f"{value:.{digits}f}{NARROW}ms"
    spread, least = max(value - low, high - value), 10**-digits
    told = f"{spread:.{digits}f}" if spread >= least / 2 or spread == 0 else f"<{least:.{digits}f}"
    return f"{value:.{digits}f}{NARROW}ms{NARROW}±{NARROW}{told}"


def thresholds(values: Iterable[float]) -> str:
    """Of exits: 0.912 / 0.8; with more than three digits where one is close to 1."""
    return " / ".join(_digits(value) for value in values)


def _digits(value: float) -> str:
    distance = abs(1 - value)
    digits = 3 if distance == 0 else max(3, 1 - math.floor(math.log10(distance)))
    return f"{value:.{min(digits, 8)}f}".rstrip("0").rstrip(".")


def size(value: float | None) -> str:
    """Bytes in the unit that fits: 1.8 MiB."""
    return "–" if value is None else _scaled(value, 1024, ("B", "KiB", "MiB", "GiB"))


def count(value: float | None) -> str:
    """11,689,512 -> 11.7 M"""
    return "–" if value is None else _scaled(value, 1000, ("", "k", "M", "G", "T"))


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    place = 0
    while value >= base and place < len(units) - 1:
        value, place = value / base, place + 1
    return f"{value:.{0 if place == 0 else 1}f}{NARROW}{units[place]}".strip()


def duration(seconds: float) -> str:
    """Roughly: 40 s, 12 min, 1.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))}{NARROW}s"
    return f"{seconds / 60:.0f}{NARROW}min" if seconds < 5400 else f"{seconds / 3600:.1f}{NARROW}h"


def age(then: float) -> str:
    """Since a time in seconds since 1970: 3 min."""
    seconds = max(0.0, time.time() - then)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def target_name(target: str) -> str:
    """A target's JSON as a person reads it: onnxruntime 1.32.0 · cpu · 1 thread · batch 1 · host 3f2a.

    A machine that was given a name comes first with it.
    """
    at = Target.model_validate_json(target)
    threads = f"{at.threads} thread{'s' * (at.threads != 1)}"
    told = f"{at.software} · {at.device} · {threads} · batch {at.batch} · host {at.host}"
    return f"{at.name} · {told}" if at.name else told
