"""A run with early exits, measured again under the name of a machine."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from db import jobs, runs, variants
from db.models import Dataset, Job, Run, Stage
from db.session import reading, transaction
from db.settings import Settings
from tests.support.exits import do, project, quickly
from workers.assignment import Assignment
from workers.errors import DatasetRefused
from workers.measures.accuracy import Accuracy
from workers.stages import Store
from workers.work.measuring import _stage

NAME = "pi5"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of a copy of the project, which has a point with thresholds of its own too."""
    data = tmp_path_factory.mktemp("elsewhere") / "data"
    shutil.copytree(project(tmp_path_factory), data)
    settings = Settings(data=data)
    with reading(settings.database) as session:
        stage = _run(settings).stages[-1]
    with transaction(settings.database) as session:
        request = {"variant": stage.own.id, "thresholds": [0.6, 0.6]}
        job = jobs.add(session, "thresholds", stage.id, queue="cpu", request=request)
    with quickly():
        do(settings, job.id)
    return settings


def _run(settings: Settings) -> Run:
    with reading(settings.database) as session:
        run = runs.whole(session, runs.all_of(session)[0].id)
    assert run is not None
    return run


def measure(settings: Settings) -> None:
    with transaction(settings.database) as session:
        job = jobs.measure(session, _run(settings).id, target=NAME, runtime="onnxruntime")
    with quickly():
        do(settings, job.id)


def taken(stage: Stage, name: str) -> list[dict[str, Any]]:
    """Per variant the measurements of that name, by the name of their target."""
    found = []
    for variant in sorted(stage.variants, key=lambda variant: variant.file_sha256 is not None):
        own = [m for m in variant.measurements if m.name == name and m.split == "validation" and m.target]
        by_target = {(m.target or {}).get("name", ""): m for m in own}
        assert len(by_target) == len(own), "numbers of one target twice"
        found.append(by_target)
    return found


def test_every_point_of_the_run_is_measured_with_the_baseline_and_again_from_the_cache(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(settings)
    run = _run(settings)
    (baseline,), (own, moved) = (taken(stage, "latency_p50") for stage in run.stages)
    assert all(found[NAME].value > 0 for found in (baseline, own, moved))
    assert "" not in moved  # nothing was timed where it was made
    (one,), ratios = (taken(stage, "latency_ratio") for stage in run.stages)
    assert one[NAME].value == 1
    assert all(found[NAME].low < found[NAME].high for found in ratios)
    assert [len(taken(stage, "latency_mean")[0]) for stage in run.stages] == [0, 2]  # where it was made, too
    for stage in run.stages:
        for found in taken(stage, "accuracy"):
            assert found[NAME].value == found[""].value
    with reading(settings.database) as session:
        rows = variants.comparison(session, run.experiment_id)
    assert sum(f'"{NAME}"' in row["target"] for row in rows) == 3

    def again(*_: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(Accuracy, "_of_one", again)
    measure(settings)
    assert [len(taken(stage, "accuracy")) for stage in _run(settings).stages] == [1, 2]


def test_a_runtime_that_runs_more_than_the_exported_file_gets_it(settings: Settings, tmp_path: Path) -> None:
    stage = _run(settings).stages[0]
    assignment = Assignment(Job(kind="measure"), 1, settings, tmp_path)
    for whole in (False, True):
        file = _stage(assignment, Store(tmp_path / str(whole)), stage, stage.own, whole).file
        assert file.exists()
        assert file.with_name("model.pt2").exists() == whole


def test_numbers_of_a_stage_are_those_of_its_file(settings: Settings, tmp_path: Path) -> None:
    """Done anew, a stage has its key again: what was counted of the file before is not taken for it."""
    first, *_, last = _run(settings).stages
    assignment, store = Assignment(Job(kind="measure"), 1, settings, tmp_path), Store(tmp_path / "measured")
    before = _stage(assignment, store, first, first.own, whole=False)
    store.keep_measured(before.key, "here", [])
    first.file_sha256 = last.file_sha256
    after = _stage(assignment, store, first, first.own, whole=False)
    assert store.measured(after.key, "here") is None
    assert store.measured(before.key, "here") == ()
    assert before.file.read_bytes() != after.file.read_bytes()


def test_other_data_under_the_same_name_is_refused(settings: Settings) -> None:
    with transaction(settings.database) as session:
        session.get_one(Dataset, _run(settings).experiment.dataset_id).sha256 = "0" * 64
    with pytest.raises(DatasetRefused, match=r"other contents on this machine .* Upload it as a file"):
        measure(settings)
