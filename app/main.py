"""The web process: pages, our own routes under /api and the middleware around both, on one port.

Start it with `python -m app.main` (PAREDOWN_HOST, PAREDOWN_PORT), or hand `app.main:app` to one process of an
ASGI server. The pages themselves are in `app/pages.py`, which Streamlit runs at every visit and click.
"""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st
import uvicorn
from starlette.middleware import Middleware
from starlette.routing import Mount

from app.api import incoming
from app.api.guard import Guard
from app.api.routes import api
from app.session import settings
from db.session import migrate

HEAVY = ("altair", "pandas", "workers.recipe")


@asynccontextmanager
async def prepare(_: Any) -> AsyncIterator[dict[str, Any]]:
    """The tables are there before the first request; uploads that nobody came back to are gone.

    What takes seconds to import (torch, by the methods) is not left to the first visitor.
    """
    settings().data.mkdir(parents=True, exist_ok=True)
    migrate(settings().database)
    incoming.remove_abandoned(settings().uploads)
    for module in HEAVY:
        importlib.import_module(module)
    yield {}


app = st.App(
    Path(__file__).with_name("pages.py"),
    routes=[Mount("/api", api)],
    middleware=[Middleware(Guard)],
    lifespan=prepare,
)

if __name__ == "__main__":
    uvicorn.run(app, host=settings().host, port=settings().port, access_log=False)
