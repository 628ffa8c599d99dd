"""What open pages poll: one small JSON per topic, kept for a moment so that many pages cost one query.

`version` changes when a page must be drawn again; `jobs` holds, by id, what moves in between. Topics:
`models`, `data`, `runs`, `runs/<run id>`, `targets`, `predictors`, `blocks`. That of one run also counts the
`points` of its curves.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.session import reading
from app.waiting import sentence
from db import jobs, workers
from db.models import Job
from db.predictors import KIND

PREFIX = "/api/state/"
FRESH_SECONDS = 0.4
RUN_KINDS = ("run", "measure", "thresholds", "profile", "throughput", "sensitivity")

router = APIRouter()
_lock = threading.Lock()
_kept: dict[str, tuple[float, bytes, str]] = {}  # topic -> (until, body, version)


@router.get("/state/{topic:path}")
async def get_state(topic: str) -> Response:
    kept = _kept.get(topic)
    if kept is None or kept[0] < time.monotonic():
        try:
            kept = await run_in_threadpool(_fresh, topic)
        except KeyError as error:
            raise HTTPException(404, "There is no such topic.") from error
    return Response(kept[1], media_type="application/json", headers={"Cache-Control": "no-store"})


def version(path: str) -> str | None:
    """What the route would say now; None for a path that is not of this module."""
    topic = path.removeprefix(PREFIX)
    return None if topic == path else _fresh(topic)[2]


def _fresh(topic: str) -> tuple[float, bytes, str]:
    with _lock:  # one query, however many pages ask at once
        kept = _kept.get(topic)
        if kept is None or kept[0] < time.monotonic():
            kept = _asked(topic)
            if len(_kept) > 1000:
                _kept.clear()
            _kept[topic] = kept
        return kept


def _asked(topic: str) -> tuple[float, bytes, str]:
    """Raises KeyError for a topic that is none."""
    noun, _, subject_id = topic.partition("/")
    more: dict[str, int] = {}
    with reading() as session:
        if not subject_id:
            facts, moving = TOPICS[noun](session)
        elif noun == "runs":
            facts, moving = _one_run(session, subject_id)
            more["points"] = sum(jobs.count_points(session, job.id) for job in moving)
        else:
            raise KeyError(topic)
        online = workers.online_queues(session)
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    told = {job.id: {"state": job.state, "share": job.share, "text": sentence(job, online)} for job in moving}
    body = json.dumps({"version": digest, "jobs": told, **more}).encode()
    return time.monotonic() + FRESH_SECONDS, body, digest


Answer = tuple[Any, list[Job]]


def _imports(session: Session) -> Answer:
    return _of_kinds(session, ("import",))


def _runs(session: Session) -> Answer:
    return _of_kinds(session, RUN_KINDS)


def _of_kinds(session: Session, kinds: tuple[str, ...] | None = None) -> Answer:
    moving = list(jobs.active(session, kinds))
    return [sorted(jobs.count_by_state(session, kinds).items()), [_standing(job) for job in moving]], moving


def _predictors(session: Session) -> Answer:
    return _of_kinds(session, (KIND,))


def _blocks(session: Session) -> Answer:
    return _of_kinds(session, ("blocks",))


def _one_run(session: Session, run_id: str) -> Answer:
    found = [*jobs.latest(session, [run_id]).values(), *jobs.measuring(session, run_id)]
    return [_standing(job) for job in found], found


def _targets(session: Session) -> Answer:
    counts, moving = _of_kinds(session)
    online = [[worker.id, worker.queues, bool(worker.facts)] for worker in workers.online(session)]
    known = [[target.name, target.online] for target in workers.targets(session)]
    return [counts, online, known], moving


def _standing(job: Job) -> list[Any]:
    return [job.id, job.state, job.attempt, job.stage, job.cancel_requested, job.worker]


TOPICS: dict[str, Callable[[Session], Answer]] = {
    "models": _imports,
    "data": _imports,
    "runs": _runs,
    "targets": _targets,
    "predictors": _predictors,
    "blocks": _blocks,
}
