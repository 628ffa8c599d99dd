"""Machines elsewhere on the screen: chosen, waited for, told apart."""

import time
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import session
from db import jobs, predictors, runs, variants, workers
from db.models import Job, Model, Predictor, Worker
from tests.app.views.conftest import Open
from tests.app.views.test_runs import press, run_named
from tests.app.views.test_runtimes import facts, taken, texts
from tests.support.experiments import LAPTOP

PI = LAPTOP | {"host": "99aa00bb", "name": "pi5"}


@pytest.fixture
def pi(experiment: str) -> str:  # noqa: ARG001
    """A machine that is online, has ncnn and no OpenVINO."""
    with session.writing() as opened:
        told = {
            "cpu": "Cortex-A76",
            "runtimes": [facts("onnxruntime"), facts("ncnn"), facts("openvino", "None.")],
        }
        row = {"queues": ["target.pi5"], "device": "cpu", "facts": told, "seen_at": time.time() + 1e6}
        opened.add(Worker(id="shelf-target.pi5-1", **row))
    return "pi5"


def leave() -> None:
    with session.writing() as opened:
        workers.gone(opened, "shelf-target.pi5-1")


def asked(run_id: str) -> Job:
    with session.reading() as opened:
        return jobs.measuring(opened, run_id)[-1]


def open_measuring(page: AppTest, run_id: str, runtime: str) -> None:
    page.selectbox(key=f"runtime-{run_id}").set_value(runtime).run()
    page.button(key=f"queue-measuring-{run_id}").click().run()
    assert not page.exception


def test_without_another_machine_nothing_is_asked(visit: Open, experiment: str) -> None:  # noqa: ARG001
    assert not [box for box in visit("new_run").selectbox if box.label == "Measure on"]
    assert not [b for b in visit("runs", run=run_named("Pruned by 50 %").id).button if b.label == "Queue"]


def test_a_new_run_asks_for_the_machine_and_what_it_has(visit: Open, pi: str, woken: list[str]) -> None:
    page = visit("new_run", machine=pi, runtime="openvino")
    assert page.selectbox(key="machine").options == ["The worker that does the run", "pi5"]
    assert "OpenVINO (missing on pi5)" in page.selectbox(key="runtime").options
    assert "On pi5's machine: `pip install 'paredown[openvino]'`" in texts(page)
    page.selectbox(key="runtime").set_value("ncnn").run()
    press(page, "Queue run")
    with session.reading() as opened:
        newest = runs.recent(opened, 1)[0]
        job = jobs.latest(opened, [newest.id])[newest.id]
    assert (job.queue, job.request) == ("cpu", {"runtime": "ncnn", "target": "pi5"})
    assert woken == [job.id]
    page = visit("runs", run=newest.id)
    assert "measured in ncnn on pi5" in texts(page)


def test_the_way_to_sensitivity_keeps_the_machine(
    visit: Open, pi: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    led: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(
        st, "page_link", lambda place, query_params=None, **_: led.update({place: query_params})
    )
    visit("new_run", machine=pi, runtime="ncnn")
    asked = led["views/sensitivity.py"]
    assert (asked["machine"], asked["runtime"]) == ("pi5", "ncnn")
    visit("new_run")
    assert "machine" not in led["views/sensitivity.py"]


def test_a_machine_that_was_online_can_still_be_chosen(visit: Open, pi: str) -> None:
    leave()
    page = visit("new_run", machine=pi)
    assert page.selectbox(key="machine").options[1] == "pi5 (offline)"
    assert page.selectbox(key="machine").value == "pi5"


def test_a_finished_run_is_sent_there_and_says_what_it_waits_for(
    visit: Open, pi: str, woken: list[str], visited: list[Any]
) -> None:
    run = run_named("Pruned by 50 %")
    open_measuring(visit("runs", run=run.id), run.id, "ncnn")
    job = asked(run.id)
    assert (job.kind, job.queue, job.state) == ("measure", f"target.{pi}", "queued")
    assert job.request == {"target": "pi5", "runtime": "ncnn"}
    assert woken == [job.id]
    assert visited[-1] == ("views/runs.py", {"run": run.id})
    page = visit("runs", run=run.id)
    assert "**pi5** · ncnn · queued" in texts(page)
    assert page.button(key=f"cancel-{job.id}").label == "Cancel measuring"
    page.button(key=f"cancel-{job.id}").click().run()
    assert asked(run.id).state == "cancelled"
    page.button(key=f"retry-{job.id}").click().run()
    assert asked(run.id).state == "queued"


def test_a_run_that_is_not_done_cannot_be_sent(visit: Open, pi: str) -> None:  # noqa: ARG001
    page = visit("runs", run=run_named("Pruned by 40 %").id)
    assert not [box for box in page.selectbox if box.label == "Machine"]


def test_an_offline_machine_has_a_card_until_it_is_forgotten(visit: Open, pi: str) -> None:
    told = texts(visit("targets"))
    assert "**pi5** &nbsp; :gray[shelf-target.pi5-1] &nbsp; :green-badge[online]" in told
    assert "Cortex-A76" in told
    leave()
    page = visit("targets")
    assert ":gray-badge[offline]" in texts(page)
    press(page, "Forget")
    assert "pi5" not in texts(visit("targets"))
    with session.reading() as opened:
        assert not [target for target in workers.targets(opened) if target.name == pi]


@pytest.mark.parametrize(("system", "told"), [("Linux 6.1 x86_64", True), ("Linux 6.1 aarch64", False)])
def test_vnni_is_a_matter_of_x86(visit: Open, pi: str, system: str, told: bool) -> None:  # noqa: ARG001
    with session.writing() as opened:
        worker = opened.get_one(Worker, "shelf-target.pi5-1")
        worker.facts = worker.facts | {"system": system, "vnni": False}
        opened.get_one(Worker, "worker-1").facts = {}
    assert ("without VNNI" in texts(visit("targets"))) == told


def test_tables_go_with_the_machine_that_is_forgotten(visit: Open, pi: str) -> None:
    with session.writing() as opened:
        (model,) = opened.query(Model).all()
        for target in (pi, "nano"):
            predictors.ask(opened, model.id, "code", target)
    leave()
    press(visit("targets"), "Forget")
    with session.reading() as opened:
        assert [job.queue for job in jobs.active(opened, [predictors.KIND])] == ["target.nano"]
        assert [row.target for row in opened.query(Predictor)] == ["nano"]


def test_a_machine_that_jobs_wait_for_is_not_forgotten(visit: Open, pi: str) -> None:
    leave()
    with session.writing() as opened:
        jobs.measure(opened, run_named("Pruned by 50 %").id, target=pi, runtime="onnxruntime")
    before = texts(visit("targets")).count("Open the run")
    with session.writing() as opened:
        jobs.measure(opened, run_named("Pruned by 70 %").id, target=pi, runtime="onnxruntime")
    page = visit("targets")
    assert not [button for button in page.button if button.label == "Forget"]
    assert before >= 1
    assert texts(page).count("Open the run") == before + 1  # the job can be cancelled there


def test_its_points_are_a_target_under_its_name(visit: Open, experiment: str) -> None:
    with session.writing() as opened:
        run = runs.whole(opened, run_named("Pruned by 50 %").id)
        assert run is not None
        for stage, ratio in zip(run.stages, (1.0, 0.7, 0.6), strict=True):
            runs.add_measurements(opened, stage.id, taken(PI, 0.94, ratio))
    with session.reading() as opened:
        found = {str(row["target"]) for row in variants.comparison(opened, experiment)}
    page = visit("tradeoffs", target=next(text for text in found if '"pi5"' in text))
    name = "pi5 · onnxruntime · cpu · 1 thread · batch 1 · host 99aa00bb"
    assert name in page.selectbox(key="target").options
    rows = page.dataframe[0].value.set_index("label")
    assert rows.loc["Pruned by 50 %", "ratio"] == 0.6
    assert list(rows.index) == ["Baseline", "Pruned by 50 %"]
