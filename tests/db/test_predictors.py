"""Predictors and the runs that they are held against, on both databases."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from db import jobs, models_, predictors, runs
from db.models import Predictor, Run
from db.session import reading, transaction
from tests.db.test_runs import STAGE, new_run, number

HERE = {"host": "h", "runtime": "onnxruntime", "threads": 1, "batch": 1}
THERE = HERE | {"host": "other"}
CUT, TRAINED = {"method": "structured_pruning", "amount": 0.5}, {"method": "fine_tuning", "epochs": 2}


def test_visits_at_the_same_moment_ask_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them look before any of them asks, as far as the database lets them."""
    with transaction(url) as session:
        model_id = models_.add(session, name="m", upload_sha256="1" * 64).id
    look = predictors.of_model

    def slowly(*words: Any) -> Predictor | None:
        found = look(*words)
        time.sleep(0.2)
        return found

    def visit(_: int) -> str:
        with transaction(url) as session:
            return predictors.ask(session, model_id, "code").id

    monkeypatch.setattr(predictors, "of_model", slowly)
    with ThreadPoolExecutor(4) as visitors:
        (asked,) = set(visitors.map(visit, range(4)))
    with reading(url) as session:
        (job,) = jobs.active(session, [predictors.KIND])
    assert job.subject_id == asked


def stage(index: int, key: str, **other: Any) -> dict[str, Any]:
    return STAGE | {"index": index, "key": key} | other


def ratio(value: float, target: dict[str, Any]) -> dict[str, Any]:
    return number("latency_ratio", value) | {"target": target}


def run_of(url: str, first: str, *ratios: tuple[float, dict[str, Any]]) -> str:
    """Another run beside the first one, a stage with one ratio for each step."""
    with transaction(url) as session:
        experiment = session.get_one(Run, first).experiment
        run = runs.add(session, experiment, name="r", recipe={"name": "r", "steps": [CUT, TRAINED]})
        jobs.add(session, "run", run.id, queue="cpu", request={})
        for index, one in enumerate(ratios):
            made = stage(index, f"{run.id}{index}", method="fine_tuning", settings={"epochs": index})
            runs.save_stage(session, run.id, made, [ratio(*one)])
        return run.id


def test_of_every_run_the_last_stage_is_what_was_measured(url: str) -> None:
    first = new_run(url)
    whole = run_of(url, first, (1.0, HERE), (0.6, HERE), (0.5, HERE))
    half = run_of(url, first, (1.0, HERE), (0.7, THERE))
    with transaction(url) as session:
        model_id = session.get_one(Run, first).experiment.model_id
        elsewhere = next(s for s in runs.whole(session, whole).stages if s.index == 1)  # type: ignore[union-attr]
        runs.add_measurements(session, elsewhere.id, [ratio(0.4, THERE)])
    with reading(url) as session:
        found = predictors.measured_ratios(session, model_id)
    assert sorted((run, len(steps), value, target["host"]) for run, steps, value, target in found) == sorted(
        [(whole, 2, 0.5, "h"), (whole, 1, 0.4, "other"), (half, 1, 0.7, "other")]
    )


def test_the_newest_runs_tell(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "MOST_RUNS", 2)
    first = new_run(url)
    made = [run_of(url, first, (1.0, HERE), (value, HERE)) for value in (0.9, 0.8, 0.7)]
    with reading(url) as session:
        experiment = session.get_one(Run, first).experiment
        ratios = predictors.measured_ratios(session, experiment.model_id)
        trained = predictors.trained_stages(session, experiment.id)
    assert {run for run, *_ in ratios} == set(made[1:])
    assert trained == [("fine_tuning", {"epochs": 1}, 1.0, "cpu")] * 2


def test_pages_that_saw_the_same_table_have_it_built_anew_once(url: str) -> None:
    with transaction(url) as session:
        model_id = models_.add(session, name="m", upload_sha256="1" * 64).id
        asked = predictors.ask(session, model_id, "code", "pi5")
        jobs.request_cancel(session, jobs.latest(session, [asked.id])[asked.id].id)
        predictors.built(session, asked.id, "key", {"a": 1})
    with reading(url) as session:
        seen = [predictors.of_model(session, model_id, "code", "pi5")]
    with reading(url) as session:
        seen.append(predictors.of_model(session, model_id, "code", "pi5"))
    for row in seen:
        assert row is not None
        with transaction(url) as session:
            predictors.renew(session, row)
    with reading(url) as session:
        assert [job.queue for job in jobs.active(session, [predictors.KIND])] == ["target.pi5"]
        assert predictors.table_of(session, "key") is None
        found = predictors.of_model(session, model_id, "code", "pi5")
        assert found is not None
        assert found.table is None
