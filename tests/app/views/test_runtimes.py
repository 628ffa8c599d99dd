"""Runtimes on the screen: what is asked for, what is there, and what could not be run."""

import json
from typing import Any

from streamlit.testing.v1 import AppTest

from app import session
from db import jobs, runs, variants, workers
from tests.app.views.conftest import Open
from tests.support.experiments import LAPTOP
from tests.support.experiments import _number as number

FASTEST = LAPTOP | {"runtime": "fastest", "version": "onnxruntime 1.32.0, openvino 2026.4.1"}
OPENVINO = LAPTOP | {"runtime": "openvino", "version": "2026.4.1"}
MISSING = "The package openvino is not installed."


def facts(name: str, missing: str = "", devices: tuple[str, ...] = ("cpu",)) -> dict[str, Any]:
    return {
        "id": name, "title": name.title(), "version": "" if missing else "1.2", "missing": missing,
        "devices": () if missing else devices, "install": f"pip install 'paredown[{name}]'",
    }  # fmt: skip


def tell(*runtimes: dict[str, Any]) -> None:
    """What the one worker says of itself."""
    with session.writing() as opened:
        workers.describe(opened, "worker-1", {"cpu": "c", "runtimes": list(runtimes)})


def texts(page: AppTest) -> str:
    return "\n".join(str(e.value) for e in (*page.markdown, *page.caption, *page.info))


def press(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def asked() -> list[str]:
    """Of the jobs of the newest runs, newest first."""
    with session.reading() as opened:
        newest = runs.recent(opened, 3)
        found = jobs.latest(opened, [run.id for run in newest])
        return [found[run.id].request.get("runtime", "") for run in newest]


def test_what_is_chosen_is_in_the_job_and_in_the_url(
    visit: Open,
    experiment: str,  # noqa: ARG001
    woken: list[str],  # noqa: ARG001
) -> None:
    page = visit("new_run")
    press(page, "Queue run")
    assert asked()[0] == "onnxruntime"
    page = visit("new_run", runtime="fastest")
    assert page.selectbox(key="runtime").value == "fastest"
    press(page, "Queue with 3 amounts")
    assert asked() == ["fastest"] * 3
    page.selectbox(key="runtime").set_value("torch_compile").run()
    assert page.query_params["runtime"] == "torch_compile"


def test_the_form_knows_what_the_workers_have(visit: Open, experiment: str) -> None:  # noqa: ARG001
    tell(facts("onnxruntime", devices=("cpu", "cuda")), facts("openvino", MISSING))
    page = visit("new_run", runtime="openvino")
    box = page.selectbox(key="runtime")
    assert "ONNX Runtime on cuda" in box.options
    assert "OpenVINO (missing on the worker)" in box.options
    assert "pip install 'paredown[openvino]'" in texts(page)


def test_the_card_of_a_worker_says_what_it_has_and_what_adds_the_rest(
    visit: Open,
    experiment: str,  # noqa: ARG001
) -> None:
    tell(facts("onnxruntime"), facts("torch_eager"), facts("openvino", MISSING))
    told = texts(visit("targets"))
    assert "Onnxruntime 1.2 · Torch_Eager 1.2" in told
    assert f"Openvino: {MISSING} `pip install 'paredown[openvino]'`" in told


def measured(experiment: str) -> None:
    """The run that pruned by half, measured in OpenVINO, which cannot run its last stage, and at its best."""
    with session.writing() as opened:
        run = runs.whole(opened, run_of(experiment))
        assert run is not None
        for stage, ratio in zip(run.stages, (1.0, 0.5, None), strict=True):
            # In the order of a run: the accuracies come first.
            told = taken(OPENVINO, 0.9, ratio) if ratio else refused(OPENVINO, "no such operator.")
            told += taken(FASTEST, 0.91, ratio or 0.4, "openvino 2026.4.1", "contended")
            runs.add_measurements(opened, stage.id, told)


def taken(target: dict[str, Any], accuracy: float, ratio: float, *marks: str) -> list[dict[str, Any]]:
    values = {"accuracy": accuracy, "latency_p50": 3 * ratio, "latency_ratio": ratio}
    more = {"target": target, "marks": list(marks), "split": "validation"}
    return [number(name, value, "u") | more for name, value in values.items()]


def refused(target: dict[str, Any], why: str) -> list[dict[str, Any]]:
    more = {"target": target, "marks": [why], "split": "validation", "value": None}
    return [number(name, 0, "u") | more for name in ("accuracy", "latency_p50")]


def target(experiment: str, runtime: str) -> str:
    """As it stands in the URL."""
    with session.reading() as opened:
        found = {str(row["target"]) for row in variants.comparison(opened, experiment)}
    return next(text for text in found if f'"{runtime}"' in text)


def run_of(experiment: str) -> str:
    with session.reading() as opened:
        found = {(run.name, run.experiment_id): run.id for run in runs.all_of(opened)}
    return found["Pruned by 50 %", experiment]


def test_points_of_runtimes_are_targets_of_their_own(visit: Open, experiment: str) -> None:
    measured(experiment)
    page = visit("tradeoffs", target=target(experiment, "fastest"))
    names = page.selectbox(key="target").options
    assert len(names) == 4
    assert f"fastest of {FASTEST['version']} · cpu · 1 thread · batch 1 · host 3f2a91bc" in names
    row = page.dataframe[0].value.set_index("label").loc["Pruned by 50 %"]
    assert (row["ratio"], row["accuracy_percent"]) == (0.4, 91)
    assert row["marks"] == "openvino 2026.4.1, contended"


def test_a_stage_without_numbers_is_told_below_the_chart(visit: Open, experiment: str) -> None:
    measured(experiment)
    where = target(experiment, "openvino")
    page = visit("tradeoffs", target=where)
    assert "**Pruned by 50 %** has no numbers on this target. no such operator." in texts(page)
    assert list(page.dataframe[0].value["label"]) == ["Baseline"]
    page = visit("runs", run=run_of(experiment), target=json.dumps(OPENVINO))
    assert "Fine-tuning has no numbers on this target. no such operator." in texts(page)


def test_duplicating_a_run_keeps_its_runtime(
    visit: Open,
    experiment: str,  # noqa: ARG001
    woken: list[str],  # noqa: ARG001
    visited: list[Any],
) -> None:
    press(visit("new_run", runtime="all"), "Queue run")
    with session.reading() as opened:
        newest = runs.recent(opened, 1)[0].id
    page = visit("runs", run=newest)
    assert "measured in every runtime" in texts(page)
    press(page, "Duplicate and edit")
    assert visited[-1][1]["runtime"] == "all"
