"""What a job's process works on, and how it tells the database about it. Imports no torch."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import jobs
from db.models import Job
from db.session import reading, transaction
from db.settings import Settings

SECONDS_BETWEEN_WRITES = 0.5
log = logging.getLogger(__name__)


class NoLongerOurs(Exception):
    """Another worker has this job by now, or it has ended; nothing may be written any more."""


class GaveWay(Exception):
    """Somebody waits for another job; this one goes back to the queue."""


@dataclass
class Assignment:
    """One attempt at a job: what it was asked, a folder that is removed afterwards, and a way to tell."""

    job: Job
    attempt: int
    settings: Settings
    folder: Path
    _told: tuple[int, float, str] | None = None
    _points: list[tuple[int, int, Mapping[str, Any]]] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _news: threading.Event = field(default_factory=threading.Event)

    def tell(self, text: str, *, stage: int = 0, share: float = 0.0) -> None:
        """Call it as often as you like: the last one counts, twice a second."""
        with self._guard:
            self._told = (stage, share, text)
        self._news.set()

    def point(self, stage: int, values: Mapping[str, Any]) -> None:
        """A point of the curves; `values` holds its `epoch`."""
        with self._guard:
            self._points.append((stage, int(values["epoch"]), values))
        self._news.set()

    def write(self, change: Callable[[Session], object] = lambda _: None) -> None:
        """Write what was told, and `change`, in one transaction. Raises NoLongerOurs."""
        with self._guard:
            told, points = self._told, self._points
            self._told, self._points = None, []
        with transaction(self.settings.database) as session:
            stage, share, text = told or (self.job.stage, self.job.share, self.job.text)
            if not jobs.progress(session, self.job.id, self.attempt, stage=stage, share=share, text=text):
                raise NoLongerOurs
            for point in points:
                jobs.point(session, self.job.id, *point)
            change(session)
        self.job.stage, self.job.share, self.job.text = stage, share, text

    def give_way(self) -> None:
        """For jobs that nobody waits for. Raises GaveWay when somebody waits for another one."""
        with reading(self.settings.database) as session:
            if self.job.worker and jobs.others_wait(session, self.job.worker):
                raise GaveWay

    def write_regularly(self) -> None:
        """In a thread of its own: the first thing at once, later ones after a pause, the last one too."""
        while self._news.wait():
            self._news.clear()
            if self._told or self._points:
                try:
                    self.write()
                except NoLongerOurs:
                    os._exit(1)  # whatever the job is at: its results could not be kept
                except Exception:  # a database that is away comes back
                    log.exception("Progress was not written.")
            time.sleep(SECONDS_BETWEEN_WRITES)
