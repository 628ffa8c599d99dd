"""Watching what is measured where."""

from collections.abc import Sequence

import pytest

from workers.base import Artefact, Bench, Measurement, Target
from workers.catalog import MEASURES


def targets_asked(monkeypatch: pytest.MonkeyPatch) -> list[Target]:
    """Filled with the target of every accuracy that is taken from now on."""
    asked: list[Target] = []
    measure = MEASURES["accuracy"]
    take = measure.take

    def watched(self: object, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:
        asked.append(bench.target)
        return take(self, artefacts, bench)  # type: ignore[arg-type]

    monkeypatch.setattr(measure, "take", watched)
    return asked
