"""Kind `throughput`, by the real job: a grid of the variant's own file, found again by what it depends on."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from db import analyses, jobs, variants
from db.models import Analysis, Job
from db.session import reading, transaction
from db.settings import Settings
from tests.support import exits
from workers.throughput.grid import Grid
from workers.work import throughput as work
from workers.work.throughput import TOGETHER


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    shutil.copytree(exits.project(tmp_path_factory), tmp_path, dirs_exist_ok=True)
    return Settings(data=tmp_path)


def asked(settings: Settings, stage_id: str, **request: object) -> tuple[Job, list[Analysis]]:
    with transaction(settings.database) as session:
        job = jobs.add(session, "throughput", stage_id, queue="cpu", request=request)
    with exits.quickly():
        exits.do(settings, job.id)
    with reading(settings.database) as session:
        return session.get_one(Job, job.id), analyses.of_stage(session, "throughput", stage_id)


def test_a_grid_is_kept_and_replaced_by_the_next_of_that_budget(settings: Settings) -> None:
    with reading(settings.database) as session:
        variant, stage, _ = variants.with_exits(session)[0]
    _, (first,) = asked(settings, stage.id, variant=variant.id, seconds=1.0)
    grid = Grid.model_validate(first.document["grid"])
    assert grid.seconds == 1.0
    assert any(cell.calls and cell.way.batch > 1 for cell in grid.cells)
    assert grid.notes[0] == TOGETHER  # the file has exits
    assert first.document["file_sha256"] == stage.file_sha256
    assert "threads" not in first.target
    _, (second,) = asked(settings, stage.id, variant=variant.id, seconds=1.0)
    assert second.document != first.document
    assert second.created_at > first.created_at
    _, found = asked(settings, stage.id, variant=variant.id, seconds=0.5)
    assert [analysis.document["grid"]["seconds"] for analysis in found] == [0.5, 1.0]


def test_the_same_file_in_another_run_takes_nothing_from_the_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run of an experiment starts from the same file."""
    points = exits.equal_baselines(settings)
    seen: list[np.ndarray] = []

    def pretended(*given: np.ndarray, **_: object) -> Grid:
        seen.append(given[2])
        return Grid(cores=1, seconds=1.0, cells=())

    monkeypatch.setattr(work, "measure_grid", pretended)
    for stage_id, variant_id in points:
        _, (kept,) = asked(settings, stage_id, variant=variant_id, seconds=1.0)
        assert kept.stage_id == stage_id
    with reading(settings.database) as session:
        assert [len(analyses.of_stage(session, "throughput", stage)) for stage, _ in points] == [1, 1]
    assert seen[0].shape == (256, 1, 28, 28)
    assert len(np.unique(seen[0].reshape(256, -1), axis=0)) > 200  # real ones, not one again and again
