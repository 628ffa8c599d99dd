"""Kind `sensitivity`, by the real job: one that was cancelled goes on; the same one is not done again."""

import shutil
from pathlib import Path

import pytest

from db import analyses, jobs, runs
from db.models import Job
from db.session import reading, transaction
from db.settings import Settings
from tests.support import exits
from workers.sensitivity.analysis import Analysis
from workers.sensitivity.table import Row, Table


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    shutil.copytree(exits.project(tmp_path_factory), tmp_path, dirs_exist_ok=True)
    return Settings(data=tmp_path)


class Cancelled(Exception):
    pass


def test_a_table_is_gone_on_with(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(settings.database) as session:
        (stage,) = runs.baseline_stages(session, [runs.experiments(session)[0].id]).values()
    row, done = Analysis._row, list[str]()

    def cheap(self: Analysis, layer: str, *_: object) -> Row:
        if len(done) == 2:
            done.append("cancelled")
            raise Cancelled
        done.append(layer)
        return row(self, layer, None, None)  # without cells: what they hold is tested elsewhere

    def asked() -> tuple[Job, Table]:
        with transaction(settings.database) as session:
            job = jobs.add(session, "sensitivity", stage.id, queue="cpu", request={"samples": 64})
        with exits.quickly():
            exits.do(settings, job.id)
        with reading(settings.database) as session:
            (found,) = analyses.of_stage(session, "sensitivity", stage.id)
            return session.get_one(Job, job.id), Table.model_validate(found.document)

    monkeypatch.setattr(Analysis, "_row", cheap)
    monkeypatch.setattr(Analysis, "_integers", lambda _: None)
    with pytest.raises(Cancelled):
        asked()
    with reading(settings.database) as session:
        (begun,) = analyses.of_stage(session, "sensitivity", stage.id)
    assert len(begun.document["rows"]) == 2
    assert begun.document["whole"] is False
    job, table = asked()
    assert table.whole
    assert job.stage == len(table.rows) - 1  # a page is drawn again with every row
    assert done.count("conv1") == 1
    assert [name for name in done if name != "cancelled"] == [row.layer for row in table.rows]
    before = len(done)
    asked()
    assert len(done) == before
