"""New run: form and YAML are one recipe, and what is queued is what is shown."""

import json
from typing import Any

from streamlit.testing.v1 import AppTest

from app import session
from app.recipes import presets
from db import jobs, runs
from db.models import Model
from tests.app.views.conftest import Open


def press(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def recipe(page: AppTest) -> dict[str, Any]:
    value = page.query_params["recipe"]
    text = value if isinstance(value, str) else value[0]
    found: dict[str, Any] = json.loads(text)
    return found


def test_nothing_to_run_on_yet(visit: Open) -> None:
    page = visit("new_run")
    assert "a model and a dataset first" in page.info[0].value
    assert not page.button


def test_queueing_adds_a_run_with_a_job_and_wakes(visit: Open, experiment: str, woken: list[str]) -> None:
    with session.reading() as opened:
        before = runs.count(opened, experiment)
    page = visit("new_run")
    press(page, "Queue run")
    with session.reading() as opened:
        assert runs.count(opened, experiment) == before + 1
        newest = runs.recent(opened, 1)[0]
        job = jobs.latest(opened, [newest.id])[newest.id]
    assert woken == [job.id]
    assert job.state == "queued"
    step = newest.recipe["steps"][0]
    assert {name: step[name] for name in ("method", "amount", "round_to")} == {
        "method": "structured_pruning",
        "amount": 0.5,
        "round_to": 8,
    }


def test_of_a_recipe_that_cannot_be_read_the_form_says_so_and_queues_nothing(
    visit: Open,
    experiment: str,  # noqa: ARG001
) -> None:
    """Half-way through a change it is one: an amount of 0 without amounts of layers."""
    page = visit("new_run")
    page.number_input(key="step-0-0-amount").set_value(0).run()
    assert not page.exception
    assert any("amount" in element.value for element in (*page.markdown, *page.error, *page.text))
    assert next(button for button in page.button if button.label == "Queue run").disabled
    page.number_input(key="step-0-0-amount").set_value(0.5).run()
    assert not next(button for button in page.button if button.label == "Queue run").disabled


def test_an_onnx_file_takes_the_steps_that_need_no_training(
    visit: Open,
    experiment: str,  # noqa: ARG001
    woken: list[str],
) -> None:
    with session.writing() as opened:
        for model in opened.query(Model).all():
            model.file_name = "model.onnx"
    page = visit("new_run", recipe=json.dumps(presets()["Safe"].recipe))
    assert not any("needed for" in element.value for element in page.markdown)
    press(page, "Queue run")
    assert len(woken) == 1
    page = visit("new_run", recipe=json.dumps(presets()["Balanced"].recipe))
    assert next(button for button in page.button if button.label == "Queue run").disabled
    assert any("needed for Structured pruning; this model" in element.value for element in page.markdown)


def test_three_amounts_are_three_runs(visit: Open, experiment: str, woken: list[str]) -> None:  # noqa: ARG001
    press(visit("new_run"), "Queue with 3 amounts")
    with session.reading() as opened:
        amounts = [run.recipe["steps"][0]["amount"] for run in runs.recent(opened, 3)]
    assert sorted(amounts) == [0.3, 0.5, 0.7]
    assert len(woken) == 3


def test_settings_of_the_form_reach_the_url(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("new_run")
    page.number_input(key="step-0-0-amount").set_value(0.6).run()
    assert recipe(page)["steps"][0]["amount"] == 0.6


def test_step_is_added_moved_and_removed_in_legal_order(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("new_run")
    press(page, "Fine-tuning")
    assert [s["method"] for s in recipe(page)["steps"]] == [
        "structured_pruning",
        "fine_tuning",
        "quantization",
    ]
    page.button(key="move1-1-0").click().run()
    assert [s["method"] for s in recipe(page)["steps"]] == [
        "fine_tuning",
        "structured_pruning",
        "quantization",
    ]
    page.button(key="remove-2-0").click().run()
    assert [s["method"] for s in recipe(page)["steps"]] == ["structured_pruning", "quantization"]


def test_yaml_is_the_same_recipe(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("new_run")
    text = str(page.text_area[0].value)
    page.text_area[0].set_value(text.replace("amount: 0.5", "amount: 0.45")).run()
    assert recipe(page)["steps"][0]["amount"] == 0.45
    page.text_area[0].set_value("steps: [{method: magic}]").run()
    assert "magic" in " ".join(element.value for element in page.text)
    assert recipe(page)["steps"][0]["amount"] == 0.45


def test_preset_fills_the_form(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("new_run")
    page.pills(key="preset-0").set_value("Smallest").run()
    assert page.number_input(key="step-1-0-amount").value == 0.8
    assert page.selectbox(key="step-1-1-mode").value == "qat"
    assert recipe(page)["name"] == "Smallest"


def test_a_link_that_was_cut_short_is_told(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("new_run", recipe='{"name":"Mine","ste')
    assert "cut short" in page.warning[0].value
    unknown = {"name": "Mine", "steps": [{"method": "magic"}]}
    assert "magic" in visit("new_run", recipe=json.dumps(unknown)).warning[0].value


def test_page_says_that_the_cpu_takes_it(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("new_run")
    seen = [element.value.replace("\\", "") for element in page.markdown]
    assert any("No GPU worker is online: the CPU takes it" in text for text in seen)


def test_first_run_of_an_experiment_brings_its_baseline(url: str, woken: list[str]) -> None:  # noqa: ARG001
    from app.queueing import queue_runs
    from db import datasets, models_

    with session.writing() as opened:
        model = models_.add(opened, name="m", upload_sha256="a" * 64).id
        data = datasets.add(opened, name="d", source="sample", upload_sha256=None).id
    queue_runs(model, data, [{"name": "One", "steps": [{"method": "fine_tuning", "epochs": 1}]}])
    with session.reading() as opened:
        assert sorted(run.name for run in runs.recent(opened, 5)) == ["Baseline", "One"]
    assert len(woken) == 2


def test_another_model_that_teaches_is_chosen_from_those_that_are_there(
    visit: Open,
    experiment: str,  # noqa: ARG001
) -> None:
    with session.writing() as opened:
        known = {"file_sha256": "e" * 64, "file_name": "m.pt2", "spec": {}, "upload_sha256": "1" * 64}
        for name, upload in (("big", "a"), ("twin", "b"), ("twin", "c")):
            opened.add(Model(name=name, **{**known, "upload_sha256": upload * 64}))
        opened.add(Model(name="runs only", **{**known, "file_name": "m.onnx"}))
    page = visit("new_run", recipe=json.dumps({"name": "Taught", "steps": [{"method": "distillation"}]}))
    assert not [box for box in page.selectbox if box.label == "Teacher model"]
    page.selectbox(key="step-0-0-teacher").select("other").run()
    (box,) = (box for box in page.selectbox if box.label == "Teacher model")
    assert {"big", "twin", "twin (2)"} <= set(box.options)
    assert "runs only" not in box.options
    box.select("big").run()
    assert recipe(page)["steps"][0]["teacher_model"] == "big"
    (box,) = (box for box in page.selectbox if box.label == "Teacher model")
    box.select("b" * 64).run()
    assert not page.exception
    assert recipe(page)["steps"][0]["teacher_model"] == "b" * 64
