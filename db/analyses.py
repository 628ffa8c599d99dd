"""What is said to the database about analyses: one JSON document each, found again by what it depends on."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Analysis


def find(session: Session, kind: str, key: str) -> Analysis | None:
    """key: hash of everything that the document depends on."""
    return session.scalar(select(Analysis).where(Analysis.kind == kind, Analysis.key == key))


def of_stage(session: Session, kind: str, stage_id: str) -> list[Analysis]:
    """Newest first; behind them those whose document says that more is to come ("whole": false)."""
    newest = of_stages(session, kind, [stage_id])
    return sorted(newest, key=lambda row: not row.document.get("whole", True))


def of_stages(session: Session, kind: str, stage_ids: Iterable[str]) -> list[Analysis]:
    """Of all of these, newest first."""
    found = select(Analysis).where(Analysis.kind == kind, Analysis.stage_id.in_(list(stage_ids)))
    return list(session.scalars(found.order_by(Analysis.created_at.desc())))


def of_any_stage(session: Session, kind: str, content: str) -> list[Analysis]:
    """All whose key begins so, where keys are made of that of the content and the stage."""
    found = select(Analysis).where(Analysis.kind == kind, Analysis.key.startswith(content))
    return list(session.scalars(found))


def of_model(session: Session, kind: str, model_id: str) -> list[Analysis]:
    """Of the model as uploaded, newest first."""
    found = select(Analysis).where(Analysis.kind == kind, Analysis.model_id == model_id)
    return list(session.scalars(found.order_by(Analysis.created_at.desc())))


def save(
    session: Session,
    kind: str,
    key: str,
    *,
    target: Mapping[str, Any],
    document: Mapping[str, Any],
    stage_id: str | None = None,
    model_id: str | None = None,
) -> Analysis:
    """Replaces what was kept under this key, of an earlier attempt for instance, and is the newest.

    It is about a stage, or about a model as uploaded.
    """
    assert (stage_id is None) != (model_id is None)
    row = find(session, kind, key)
    if row is None:
        row = Analysis(kind=kind, key=key)
        session.add(row)
    row.stage_id, row.model_id = stage_id, model_id
    row.target, row.document, row.created_at = dict(target), dict(document), time.time()
    session.flush()
    return row
