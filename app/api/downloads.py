"""Downloads: files from the store under the name a person gave them, unpacked and with their checksum."""

import re

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from app.session import artifacts, reading
from db import variants
from db.models import Run, Stage, Variant

router = APIRouter(prefix="/downloads")


@router.get("/variants/{variant_id}")
def get_variant(variant_id: str) -> FileResponse:
    """The exported file of a point."""
    with reading() as session:
        found = variants.whole(session, variant_id)
    if found is None:
        raise HTTPException(404, "There is no such point.")
    variant, stage, run = found
    sha256 = variants.stored(variant, stage, "file")
    assert sha256 is not None
    return stored_file(sha256, variant_file(variant, stage, run))


@router.get("/variants/{variant_id}/exits.json")
def get_exits(variant_id: str) -> FileResponse:
    """Cuts, temperatures, thresholds, path times and the promise of a point with early exits."""
    with reading() as session:
        found = variants.whole(session, variant_id)
    sha256 = found and variants.stored(found[0], found[1], "exits")
    if not sha256:
        raise HTTPException(404, "There is no such point, or it has no exits.")
    return stored_file(sha256, "exits.json")


@router.get("/files/{sha256}")
def get_file(sha256: str) -> FileResponse:
    """Any file of the store, for workers on machines that do not share its folder."""
    return stored_file(sha256, sha256)


def stored_file(sha256: str, name: str) -> FileResponse:
    """Raises 404 when the store has lost it."""
    try:
        path = artifacts().path(sha256)
    except KeyError as error:
        raise HTTPException(404, "The file is no longer in the store.") from error
    # Without this the middleware would compress a gigabyte on the fly and hide its length.
    headers = {"Content-Encoding": "identity", "X-SHA256": sha256, "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, filename=name, media_type="application/octet-stream", headers=headers)


def variant_file(variant: Variant, stage: Stage, run: Run) -> str:
    """Thresholds that were set later are told by the name."""
    name = file_name(run.name, stage.index)
    if variant.file_sha256 is None or not variant.thresholds:
        return name
    values = "-".join(f"{value:.4g}" for value in variant.thresholds.values())
    return name.replace(".onnx", f"-exits-{values}.onnx")


def file_name(run_name: str, stage: int) -> str:
    """Letters, digits, `.`, `_` and `-` only: a name that every system and shell takes."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", run_name).strip("-.") or "model"
    return f"{clean}-stage{stage}.onnx" if stage else f"{clean}.onnx"
