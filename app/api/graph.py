"""The graph of a file in the browser: netron's page, served from our own address, with one file opened in it.

Everything lies flat under /api/graph/<noun>/<id>/: the page itself, what netron brings, and the file. Netron
would call home and ask for consent; both are told off, and the policy in the header lets nothing else out.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse, HTMLResponse

from app.api.downloads import stored_file, variant_file
from app.session import reading
from db import models_, variants

INSTALL = "pip install 'paredown[graph]'"
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "frame-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
#: What netron's page is made of; the package also holds Python.
KINDS = frozenset((".js", ".css", ".json", ".png", ".ico"))

router = APIRouter(prefix="/graph")


def netron_folder() -> Path | None:
    """None where netron is not installed. It is found, never imported: only its page is used."""
    found = find_spec("netron")
    return None if found is None or found.origin is None else Path(found.origin).parent


@router.get("/{noun}/{subject}/{name}")
def get_part(noun: str, subject: str, name: str) -> Response:
    """A part of the page, or the file that it shows. Raises 404."""
    if name.startswith("model."):
        return stored_file(*_file(noun, subject))
    path = _netron() / name
    if not re.fullmatch(r"[\w-]+\.\w+", name) or path.suffix not in KINDS or not path.is_file():
        raise HTTPException(404, "Netron has no such file.")
    return FileResponse(
        path, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    )


@router.get("/{noun}/{subject}/")
def get_page(noun: str, subject: str) -> HTMLResponse:
    """Netron's page with the file opened. Raises 404, also where netron is not installed."""
    _, called = _file(noun, subject)
    page = (_netron() / "index.html").read_text(encoding="utf-8")
    # A version of its own would make it send statistics, and refuse to work half a year after its release.
    page = re.sub(r'<meta name="(version|date)" content="[^"]*">', "", page)
    told = {"type": "Paredown", "version": "0.0.0", "file": f"model{Path(called).suffix}", "name": called}
    metas = "\n".join(f'<meta name="{name}" content="{value}">' for name, value in told.items())
    answer = HTMLResponse(page.replace("<head>", f"<head>\n{metas}", 1))
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["Cache-Control"] = "no-store"
    # Without it the page asks another site from where it is read, and for consent to be watched.
    answer.set_cookie("consent", "none", path="/api/graph", samesite="strict")
    return answer


def _netron() -> Path:
    folder = netron_folder()
    if folder is None:
        raise HTTPException(404, f"Netron is not installed: {INSTALL}")
    return folder


def _file(noun: str, subject: str) -> tuple[str, str]:
    """SHA-256 and name. Raises 404."""
    with reading() as session:
        if noun == "variants" and (found := variants.whole(session, subject)) is not None:
            sha256 = variants.stored(found[0], found[1], "file")
            if sha256 is not None:
                return sha256, variant_file(*found)
        if noun == "models" and (model := models_.find(session, subject)) is not None and model.file_sha256:
            return model.file_sha256, model.file_name or "model"
    raise HTTPException(404, "There is no such file.")
