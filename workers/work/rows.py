"""What was measured and decided, as the database keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workers.base import Measurement


def columns_of(measurement: Measurement) -> Mapping[str, Any]:
    """The columns of `db.models.Measurement`."""
    columns = measurement.model_dump(mode="json")
    return columns | {"marks": list(measurement.marks)}


def threshold_columns(thresholds: Sequence[float]) -> dict[str, float]:
    """Named as in the file, and rounded as there: float32."""
    return {f"exit_{number}": float(np.float32(value)) for number, value in enumerate(thresholds, start=1)}
