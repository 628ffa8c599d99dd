"""The web process' way to the database and the files: views and routes open what they need through here."""

from contextlib import AbstractContextManager
from functools import cache

from sqlalchemy.orm import Session

import db.session
from db.artifacts import Artifacts
from db.settings import Settings


@cache
def settings() -> Settings:
    """Read once; a changed environment needs a new process."""
    return Settings()


def reading() -> AbstractContextManager[Session]:
    """A consistent view; nothing done in it is kept."""
    return db.session.reading(settings().database)


def writing() -> AbstractContextManager[Session]:
    """Committed when the block ends well, rolled back when it raises."""
    return db.session.transaction(settings().database)


def artifacts() -> Artifacts:
    return Artifacts(settings().artifacts)
