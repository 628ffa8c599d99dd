"""Runs, stages and workers on both databases."""

from typing import Any

import pytest
from sqlalchemy import update

from db import analyses, datasets, models_, runs, variants, workers
from db.clock import seconds_now
from db.models import DEFAULT_PROJECT, Worker
from db.session import reading, transaction

STAGE: dict[str, Any] = {
    "index": 0, "method": None, "settings": {}, "key": "k", "seconds": 1.0, "cached": False, "notes": ["n"],
    "file_sha256": "0" * 64, "archive_sha256": None,
    "parity": {"samples": 256, "logit_error": 2e-6, "same_answer": 1.0},
}  # fmt: skip


def number(name: str, value: float | None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "u", "better": "higher", "target": None, "marks": []}


def new_run(url: str) -> str:
    with transaction(url) as session:
        model = models_.add(session, name="m", upload_sha256="1" * 64)
        dataset = datasets.add(session, name="d", source="sample", upload_sha256=None)
        experiment = runs.experiment_of(session, model.id, dataset.id)
        assert runs.experiment_of(session, model.id, dataset.id).id == experiment.id
        return runs.add(session, experiment, name="r", recipe={"name": "r", "steps": []}).id


def test_a_stage_that_is_saved_again_replaces_the_first(url: str) -> None:
    run_id = new_run(url)
    for value in (0.5, 0.7):
        with transaction(url) as session:
            runs.save_stage(session, run_id, STAGE, [number("accuracy", value)])
    with transaction(url) as session:
        run = runs.whole(session, run_id)
        assert run is not None
        runs.add_measurements(session, run.stages[0].id, [number("latency_p50", None)])
    with reading(url) as session:
        run = runs.whole(session, run_id)
    assert run is not None
    (stage,) = run.stages
    assert stage.parity == STAGE["parity"]
    (variant,) = stage.variants
    assert [(m.name, m.value) for m in variant.measurements] == [("accuracy", 0.7), ("latency_p50", None)]


HERE = {"host": "h", "runtime": "onnxruntime"}


def test_a_retry_leaves_what_was_added_to_a_stage_since(url: str) -> None:
    run_id = new_run(url)
    staged = {**STAGE, "exits_sha256": "e" * 64}
    local = [number("accuracy", 0.5) | {"target": HERE}, number("size", 9.0)]
    with transaction(url) as session:
        stage = runs.save_stage(session, run_id, staged, local, {"exit_1": 0.9})
        runs.add_measurements(session, stage.id, [number("latency_p50", 3.0) | {"target": HERE}])
        there = number("latency_p50", 7.0) | {"target": {**HERE, "name": "pi5"}}
        variants.measured(session, stage.own.id, [there])
        variants.add(session, stage.id, {"thresholds": {"exit_1": 0.6}, "file_sha256": "f" * 64}, [])
        analyses.save(session, "profile", "key", stage_id=stage.id, target=HERE, document={})
        stage_id, own_id, newest = stage.id, stage.own.id, variants.newest_measurement(session)
    with transaction(url) as session:
        again = {**staged, "cached": True, "notes": ["from cache"]}
        assert runs.save_stage(session, run_id, again, local, {"exit_1": 0.9}).id == stage_id
        assert variants.newest_measurement(session) > newest
    with reading(url) as session:
        run = runs.whole(session, run_id)
        assert run is not None
        (stage,) = run.stages
        assert (stage.cached, stage.notes, stage.own.id) == (True, ["from cache"], own_id)
        assert stage.own.thresholds == {"exit_1": 0.9}
        numbers = {(m.name, m.value, (m.target or {}).get("name")) for m in stage.own.measurements}
        assert numbers == {("accuracy", 0.5, None), ("size", 9.0, None), ("latency_p50", 7.0, "pi5")}
        assert len(stage.own.measurements) == 3
        assert [v.thresholds for v in stage.variants if v.id != own_id] == [{"exit_1": 0.6}]
        assert len(analyses.of_stage(session, "profile", stage_id)) == 1


@pytest.mark.parametrize("changed", ["key", "file_sha256"])
def test_another_file_in_its_place_is_another_stage(url: str, changed: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        stage = runs.save_stage(session, run_id, STAGE, [number("accuracy", 0.5)])
        variants.add(session, stage.id, {"file_sha256": "f" * 64}, [number("accuracy", 0.4)])
    with transaction(url) as session:
        runs.save_stage(session, run_id, {**STAGE, changed: "9" * 64}, [number("accuracy", 0.6)])
    with reading(url) as session:
        run = runs.whole(session, run_id)
    assert run is not None
    assert [[[m.value for m in v.measurements] for v in s.variants] for s in run.stages] == [[[0.6]]]


def test_what_fails_half_way_leaves_nothing(url: str) -> None:
    run_id = new_run(url)

    def half() -> None:
        with transaction(url) as session:
            runs.save_stage(session, run_id, STAGE, [])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with reading(url) as session:
        run = runs.whole(session, run_id)
    assert run is not None
    assert run.stages == []


def test_a_worker_is_online_while_it_is_seen(url: str) -> None:
    with transaction(url) as session:
        assert workers.online(session) == []
        workers.seen(session, "w", queues=["gpu"], device="cuda")
        workers.describe(session, "w", {"cpu": "c"})
        workers.seen(session, "w", queues=["gpu"], device="cuda")
        (worker,) = workers.online(session)
        assert (worker.queues, worker.device, worker.facts) == (["gpu"], "cuda", {"cpu": "c"})
        session.execute(update(Worker).values(seen_at=seconds_now() - workers.ONLINE_SECONDS - 1))
        assert workers.online(session) == []


def test_a_model_is_found_by_name_or_hash_once_it_is_checked(url: str) -> None:
    with transaction(url) as session:
        for place, sha256 in enumerate(("1" * 64, "2" * 64, "3" * 64)):
            model = models_.add(session, name="m", upload_sha256=sha256)
            model.name, model.created_at = "m", float(place)  # of before names were told apart
            if place < 2:
                models_.imported(
                    session, model.id, spec={}, facts={}, file_sha256="4" * 64, file_name="model.pt2"
                )
        found = {
            name: models_.named(session, project, name)
            for project, name in ((DEFAULT_PROJECT, "m"), (DEFAULT_PROJECT, "1" * 64))
        }
        assert [model and model.upload_sha256 for model in found.values()] == ["2" * 64, "1" * 64]
        for project, name in ((DEFAULT_PROJECT, "3" * 64), (DEFAULT_PROJECT, "n"), ("another", "m")):
            assert models_.named(session, project, name) is None


def test_the_baseline_of_an_experiment_is_the_oldest_there_is(url: str) -> None:
    new_run(url)
    with transaction(url) as session:
        (first,) = runs.experiments(session)
        data = datasets.add(session, name="other", source="sample", upload_sha256=None)
        second = runs.experiment_of(session, first.model_id, data.id)
        third = runs.experiment_of(
            session, models_.add(session, name="n", upload_sha256="2" * 64).id, data.id
        )
        wanted: dict[str, str] = {}
        for experiment in (first, second):
            for age in (1, 3, 2):
                run = runs.add(session, experiment, name=f"{age}", recipe={"name": "r", "steps": []})
                run.created_at = 1000.0 - age
                stage = runs.save_stage(session, run.id, STAGE, [])
                runs.save_stage(session, run.id, STAGE | {"index": 1}, [])
                if age == 3:
                    wanted[experiment.id] = stage.id
        found = runs.baseline_stages(session, [first.id, second.id, third.id])
        assert {name: stage.id for name, stage in found.items()} == wanted
        assert list(runs.baseline_stages(session, [second.id])) == [second.id]
