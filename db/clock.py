"""The database's own clock: leases of several hosts must be compared by one clock."""

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class seconds_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """Seconds since 1970, with fractions, by the clock of the database's host."""

    type = Float()
    inherit_cache = True


@compiles(seconds_now, "sqlite")
def _sqlite(*_: Any, **__: Any) -> str:
    return "(julianday('now') - 2440587.5) * 86400.0"


@compiles(seconds_now, "postgresql")
def _postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"
