"""What is said to the database about analyses: one JSON document each, found again by what it depends on."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Analysis


def find(session: Session, kind: str, key: str) -> Analysis | None:
    """key: hash of everything that the document depends on."""
    return session.scalar(select(Analysis).where(Analysis.kind == kind, Analysis.key == key))


def of_stage(session: Session, kind: str, stage_id: str) -> list[Analysis]:
    """Newest first; behind them those whose document says that more is to come ("whole": false)."""
    found = select(Analysis).where(Analysis.kind == kind, Analysis.stage_id == stage_id)
    newest = session.scalars(found.order_by(Analysis.created_at.desc()))
    return sorted(newest, key=lambda row: not row.document.get("whole", True))


def of_any_stage(session: Session, kind: str, content: str) -> list[Analysis]:
    """All whose key begins so, where keys are made of that of the content and the stage."""
    return list(
        session.scalars(select(Analysis).where(Analysis.kind == kind, Analysis.key.startswith(content)))
    )


def save(
    session: Session,
    kind: str,
    key: str,
    *,
    stage_id: str,
    target: Mapping[str, Any],
    document: Mapping[str, Any],
) -> Analysis:
    """Replaces what was kept under this key, of an earlier attempt for instance, and is the newest."""
    row = find(session, kind, key)
    if row is None:
        row = Analysis(kind=kind, key=key)
        session.add(row)
    row.stage_id, row.target, row.document = stage_id, dict(target), dict(document)
    row.created_at = time.time()
    session.flush()
    return row
