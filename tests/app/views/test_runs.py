"""Runs and Targets: what stands there for a finished, a running and a failed run."""

from typing import Any

from streamlit.testing.v1 import AppTest

from app import session
from app.components.plain import plain
from db import datasets, jobs, runs
from db.models import Run, Stage
from tests.app.views.conftest import Open
from workers.job import KINDS


def run_named(name: str) -> Any:
    with session.reading() as opened:
        return next(run for run in runs.recent(opened, 50) if run.name == name)


def labels(page: AppTest) -> set[str]:
    return {button.label for button in page.button}


def press(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def test_empty(visit: Open) -> None:
    assert "No run yet" in visit("runs").info[0].value


def test_table_holds_every_run(visit: Open, experiment: str) -> None:  # noqa: ARG001
    table = visit("runs").dataframe[0].value.set_index("name")
    assert len(table) == 6
    assert table["state"].value_counts().to_dict() == {"done": 4, "running": 1, "failed": 1}
    pruned = table.to_dict("index")["Pruned by 50 %"]
    assert round(pruned["accuracy"], 1) == 94.6
    assert list(pruned["recipe"]) == [
        "Structured pruning 50 %",
        "Fine-tuning",
    ]


def test_with_two_experiments_every_run_says_of_what_it_is(visit: Open, experiment: str) -> None:
    assert "pair" not in visit("runs").dataframe[0].value
    with session.writing() as opened:
        old = next(e for e in runs.experiments(opened) if e.id == experiment)
        data = datasets.add(opened, name="other.npz", source="other.npz", upload_sha256=None)
        runs.add(opened, runs.experiment_of(opened, old.model_id, data.id), name="New", recipe={"steps": []})
        expected = f"{old.model.name} on other.npz"
    table = visit("runs").dataframe[0].value.set_index("name")
    assert table["pair"]["New"] == expected
    assert (table["pair"] == expected).sum() == 1


def test_failed_run_shows_the_sentence_and_can_be_retried(
    visit: Open,
    experiment: str,  # noqa: ARG001
    woken: list[str],
) -> None:
    run = run_named("Pruned by 90 %")
    page = visit("runs", run=run.id)
    assert "no layer can become narrower" in page.text[0].value
    assert labels(page) == {"Retry", "Duplicate and edit"}
    press(page, "Retry")
    with session.reading() as opened:
        job = jobs.latest(opened, [run.id])[run.id]
    assert job.state == "queued"
    assert woken == [job.id]


def test_running_run_can_be_cancelled(visit: Open, experiment: str) -> None:  # noqa: ARG001
    run = run_named("Pruned by 40 %")
    page = visit("runs", run=run.id)
    press(page, "Cancel")
    with session.reading() as opened:
        assert jobs.latest(opened, [run.id])[run.id].cancel_requested
    assert "Cancelling" in labels(page)


def test_duplicate_opens_the_form_with_the_same_recipe(
    visit: Open,
    experiment: str,  # noqa: ARG001
    visited: list[tuple[str, dict[str, str]]],
) -> None:
    run = run_named("Pruned by 50 %")
    press(visit("runs", run=run.id), "Duplicate and edit")
    page, query = visited[0]
    assert page == "views/new_run.py"
    form = visit("new_run", **query)
    assert form.number_input(key="step-0-0-amount").value == 0.5


def test_run_that_is_gone_is_a_sentence(visit: Open, experiment: str) -> None:  # noqa: ARG001
    assert "no such run" in visit("runs", run="nothing").warning[0].value


def test_targets_show_the_worker_and_its_job(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("targets")
    assert any("worker-1" in element.value for element in page.markdown)
    assert page.table[0].value.iloc[0].tolist() == ["cpu", 0, 1]


def test_targets_count_jobs_of_every_kind(visit: Open, experiment: str) -> None:  # noqa: ARG001
    with session.writing() as opened:
        for kind in KINDS:
            jobs.add(opened, kind, "something", queue="cpu", request={})
    assert visit("targets").table[0].value.iloc[0].tolist() == ["cpu", len(KINDS), 1]


def test_targets_without_a_worker_say_how_to_start_one(visit: Open) -> None:
    page = visit("targets")
    assert "No worker is online" in page.info[0].value
    assert page.code[0].value == "paredown worker"


def test_what_a_run_says_of_its_stages_is_no_warning(visit: Open, experiment: str) -> None:
    run, said = run_named("Pruned by 50 %"), "The pictures are grey and the model takes colour."
    with session.writing() as opened:
        opened.get_one(Stage, run_stages(run.id)[0]).notes = [said]
    page = visit("runs", run=run.id)
    assert said in [caption.value for caption in page.caption]
    assert not page.warning
    assert not visit("tradeoffs", experiment=experiment).warning


def run_stages(run_id: str) -> list[str]:
    with session.reading() as opened:
        run = runs.whole(opened, run_id)
        assert run is not None
        return [stage.id for stage in run.stages]


def test_waterfall_tells_what_each_stage_took_and_changed_on_one_target(
    visit: Open,
    experiment: str,  # noqa: ARG001
) -> None:
    run = run_named("Pruned by 50 %")
    page = visit("runs", run=run.id)
    told = stages_table(page)
    assert list(told) == ["Baseline", "Structured pruning", "Fine-tuning"]
    assert [row["Took"] for row in told.values()] == ["–", "12.5 s", "25.0 s"]
    assert told["Fine-tuning"]["Accuracy (validation)"].endswith("(+3.0 points)")
    laptop = told["Structured pruning"]["Latency"]
    assert laptop.startswith("1.63 ms")  # 3.12 ms * 0.52 * 1.004
    assert laptop.endswith("(1.9x faster)")
    page.selectbox(key="target").select_index(1).run()
    assert stages_table(page)["Structured pruning"]["Latency"].startswith("4.24 ms")  # 2.6 times that
    assert "b81d07e4" in str(page.query_params["target"])


def stages_table(page: AppTest) -> dict[str, dict[str, str]]:
    rows = page.table[0].value.map(lambda cell: cell.replace("\u00a0", " ")).to_dict("index")
    return {str(stage): {str(name): cell for name, cell in row.items()} for stage, row in rows.items()}


def test_every_stage_shows_its_own_share(visit: Open, experiment: str) -> None:  # noqa: ARG001
    table = visit("runs").dataframe[0].value.set_index("name")
    assert table.loc["Pruned by 40 %", "progress"] == 42  # of the whole run, as the job tells
    assert table["accuracy"].isna().tolist() == [True, True, False, False, False, False]


def test_the_stage_that_failed_is_marked(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("runs", run=run_named("Pruned by 90 %").id)
    stages = [element.value for element in page.markdown if element.value.startswith(":")]
    marks = [stage.partition(" **")[0] for stage in stages if "**" in stage]
    assert [("check_circle" in mark, "red" in mark) for mark in marks[-3:]] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_log_of_a_failed_run_is_its_jobs(visit: Open, experiment: str) -> None:  # noqa: ARG001
    run = run_named("Pruned by 90 %")
    with session.reading() as opened:
        job = jobs.latest(opened, [run.id])[run.id]
    assert not visit("runs", run=run.id).expander
    log = session.settings().job_log(job.id)
    log.parent.mkdir()
    log.write_text("one\nTraceback (most recent call last):\nStepFailed\n")
    page = visit("runs", run=run.id)
    assert page.expander[0].label == "Log and traceback"
    assert not page.expander[0].proto.expanded
    assert page.expander[0].code[0].value.endswith("StepFailed")


def test_what_a_file_calls_its_layers_is_shown_as_it_is(visit: Open, experiment: str) -> None:
    """As Markdown, the browser would ask another site for a picture."""
    picture, run = "![x](http://host/p.png)", run_named("Pruned by 50 %")
    with session.writing() as opened:
        opened.get_one(Run, run.id).name = picture
        whole = runs.whole(opened, run.id)
        assert whole is not None
        whole.experiment.dataset.name = picture
        whole.stages[-1].notes = [f"Layers keep their width, e.g. {picture}."]
        point = whole.stages[-1].own.id
    for page in (visit("runs", run=run.id), visit("tradeoffs", experiment=experiment, variant=point)):
        told = [str(element.value) for element in (*page.markdown, *page.caption, *page.title)]
        headers = [str(title) for table in page.table for title in table.value.columns]
        assert f"Layers keep their width, e.g. {plain(picture)}." in told
        assert not [text for text in (*told, *headers) if picture in text]
