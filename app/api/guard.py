"""Who may write: only our own pages, and programs that say so by a header.

A foreign page can send a form or a plain fetch with the browser of a person who sits here, but neither a
header of its own nor our Origin. Nor may a foreign name that is made to lead here (DNS rebinding) read.
Streamlit checks this for its own routes only.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

HEADER = "X-Paredown"
_READS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware for the routes under /api."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = None
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            reason = refusal(scope["method"], Headers(scope=scope))
        if reason is None:
            await self.app(scope, receive, send)
        else:
            await JSONResponse({"detail": reason}, status_code=403)(scope, receive, send)


def refusal(method: str, headers: Headers) -> str | None:
    """Why a request with these headers is not carried out."""
    if not is_host_allowed(headers.get("host")):
        return "This address is not one of ours; see STREAMLIT_SERVER_ALLOWED_HOSTS."
    if method in _READS:
        return None
    if HEADER not in headers:
        return f"A write needs the header {HEADER}."
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return "This came from another site."
    return None
