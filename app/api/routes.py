"""The FastAPI application mounted at /api."""

from fastapi import FastAPI

from app.api import downloads, graph, logs, state, uploads
from app.session import reading
from db import workers

api = FastAPI(title="Paredown", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
for part in (uploads, downloads, state, logs, graph):
    api.include_router(part.router)


@api.get("/health")
def health() -> dict[str, str | int]:
    """Answers only when the database does."""
    with reading() as session:
        return {"status": "ok", "workers_online": len(workers.online(session))}
