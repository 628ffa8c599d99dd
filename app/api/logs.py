"""The last lines of a job's log, for pages that show one while it grows."""

from collections import deque
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import PlainTextResponse

from app.session import settings

LINES = 60

router = APIRouter()


@router.get("/logs/{job_id}")
def get_log(job_id: str) -> PlainTextResponse:
    """Empty while the job has written nothing; it may also run on another machine."""
    if not job_id.isalnum():
        raise HTTPException(404, "There is no such job.")
    return PlainTextResponse(tail(settings().job_log(job_id)), headers={"Cache-Control": "no-store"})


def tail(path: Path, lines: int = LINES) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, lines)).strip()
    except OSError:
        return ""
