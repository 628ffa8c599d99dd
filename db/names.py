"""Names that tell two things of a kind apart, as a download folder would."""

from pathlib import PurePath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session


def free_name(session: Session, column: InstrumentedAttribute[Any], wanted: str) -> str:
    """`wanted`, or with a number before its ending where a row has that name already."""
    taken, name, number = set(session.scalars(select(column))), wanted, 1
    ending = PurePath(wanted).suffix
    while name in taken:
        number += 1
        name = f"{wanted.removesuffix(ending)} ({number}){ending}"
    return name
