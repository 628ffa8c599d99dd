"""Kind `sensitivity`, by the real job: one that was cancelled goes on; the same one is not done again."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import update

from db import analyses, jobs, runs
from db.models import Analysis, Job
from db.session import reading, transaction
from db.settings import Settings
from tests.support import exits
from workers.sensitivity.analysis import Analysis as LayerAnalysis
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
    row, done = LayerAnalysis._row, list[str]()

    def cheap(self: LayerAnalysis, layer: str, *_: object) -> Row:
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

    monkeypatch.setattr(LayerAnalysis, "_row", cheap)
    monkeypatch.setattr(LayerAnalysis, "_integers", lambda _: None)
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
    with transaction(settings.database) as session:
        session.execute(update(Analysis).values(created_at=0.0))
    asked()
    assert len(done) == before
    with reading(settings.database) as session:  # what was asked for last is shown
        assert analyses.of_stage(session, "sensitivity", stage.id)[0].created_at > 0


def test_the_same_model_and_data_in_another_run_are_not_done_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [stage for stage, _ in exits.equal_baselines(settings)]
    monkeypatch.setattr(LayerAnalysis, "_row", lambda _, layer, *__: Row(layer=layer, width=1))
    monkeypatch.setattr(LayerAnalysis, "_integers", lambda _: None)
    for stage in stages:
        with transaction(settings.database) as session:
            job = jobs.add(session, "sensitivity", stage, queue="cpu", request={"samples": 64})
        exits.do(settings, job.id)
        monkeypatch.setattr(LayerAnalysis, "run", None)
    with reading(settings.database) as session:
        (one,), (other_row,) = (analyses.of_stage(session, "sensitivity", stage) for stage in stages)
    assert one.document == other_row.document
    assert one.document["whole"]
