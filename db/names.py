"""Names that tell two things of a kind apart, as a download folder would."""

from pathlib import PurePath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

#: What a column holds (`db.models`); what is longer is part of the name and no ending.
LONGEST, LONGEST_ENDING = 200, 20


def free_name(session: Session, column: InstrumentedAttribute[Any], wanted: str) -> str:
    """`wanted`, or with a number before its ending where a row has that name already.

    A name that would get too long for its column loses letters before the number.
    """
    taken, name, number = set(session.scalars(select(column))), wanted, 1
    ending = PurePath(wanted).suffix
    if len(ending) > LONGEST_ENDING:
        ending = ""
    while name in taken:
        number += 1
        end = f" ({number}){ending}"
        name = wanted.removesuffix(ending)[: LONGEST - len(end)] + end
    return name
