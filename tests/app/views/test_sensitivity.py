"""The page Sensitivity: before a run, before a table, with one; and what a choice does to a recipe."""

import json

import pytest

from app import session
from app.charts.sensitivity import VIEWS, sensitivity_map
from app.components.plain import plain
from app.recipes import Plain, chips, whole, with_layer
from db import analyses, datasets, jobs, runs
from db.models import Stage
from tests.app.views.conftest import Open
from tests.app.views.test_tradeoffs import texts
from workers.sensitivity.table import INT8, Cell, Row, Table, pruned_by

TARGET = {"host": "3f2a91bc", "device": "cpu", "runtime": "onnxruntime", "version": "1.32.0"}
#: An e.g. names a layer, whose name comes from a file.
NOTE = "Told by the analysis of ![x](http://host/p.png)."
Visited = list[tuple[str, dict[str, str] | None]]


@pytest.fixture
def stage(experiment: str) -> Stage:
    with session.reading() as opened:
        return runs.baseline_stages(opened, [experiment])[experiment]


def keep(stage: Stage, *, whole: bool = True) -> None:
    keep_table(stage, Table(accuracy=0.95, samples=512, rows=rows(), notes=(NOTE,), whole=whole))


def rows() -> tuple[Row, ...]:
    return (
        Row(layer="conv1", root="conv1", coupled=("conv2",), width=16, cells=cells(0.9, 0.8, 0.3)),
        Row(layer="conv2", root="conv1", coupled=("conv1",), width=16, cells=cells()),
        Row(layer="conv3", root="conv3", width=32, cells=cells(0.95, 0.94, 0.6)),
        Row(layer="fc", width=10, cells=cells()),
    )


def keep_table(stage: Stage, table: Table) -> None:
    document = table.model_dump(mode="json")
    with session.writing() as opened:
        analyses.save(opened, "sensitivity", "key", stage_id=stage.id, target=TARGET, document=document)


def cells(*accuracies: float) -> tuple[Cell, ...]:
    pruned = [
        Cell(change=pruned_by(share), share=share, accuracy=accuracy, divergence=0.1, ratio=0.9)
        for share, accuracy in zip((0.25, 0.5, 0.75), accuracies, strict=False)
    ]
    return (*pruned, Cell(change=INT8, accuracy=0.949, divergence=0.001))


def test_without_a_run_it_says_what_to_do(visit: Open) -> None:
    assert "Queue a run" in visit("sensitivity").info[0].value


def test_it_is_asked_for_with_its_settings(visit: Open, stage: Stage, woken: list[str]) -> None:
    page = visit("sensitivity")
    page.number_input[0].set_value(256).run()
    page.button[0].click().run()
    with session.reading() as opened:
        job = jobs.latest(opened, [stage.id], "sensitivity")[stage.id]
    assert woken == [job.id]
    assert job.request == {"samples": 256, "timing_seconds": 300.0}
    assert [button.label for button in page.button] == ["Cancel"]
    page.button[0].click().run()
    assert [number.value for number in page.number_input] == [256, 300]


def test_a_table_is_told(visit: Open, stage: Stage, experiment: str) -> None:
    keep(stage, whole=False)
    page = visit("sensitivity", experiment=experiment)
    told = texts(page)
    assert (
        "To lose half of its channels costs conv3 least (−1.0 points) and conv1 most (−15.0 points)" in told
    )
    assert "4 layers so far" in told
    assert plain(NOTE) in told
    shown = page.dataframe[0].value.set_index("Layer")
    assert shown.loc["conv1", pruned_by(0.75)] == pytest.approx(-65)
    assert shown.loc["conv2", INT8] == pytest.approx(-0.1)
    assert shown["Goes with"].to_dict() == {"conv1": "", "conv2": "conv1", "conv3": "", "fc": "not pruned"}
    page.segmented_control[0].set_value("time").run()
    assert page.dataframe[0].value.set_index("Layer").loc["conv1", pruned_by(0.5)] == 0.9
    assert page.query_params["by"] in ("time", ["time"])


def test_where_nothing_is_lost_no_layer_costs_most(visit: Open, stage: Stage, experiment: str) -> None:
    """An untrained model guesses as before."""
    rows = [
        Row(layer=name, root=name, width=16, cells=cells(0.1, accuracy, 0.1))
        for name, accuracy in (("conv1", 0.1), ("conv2", 0.12))
    ]
    keep_table(stage, Table(accuracy=0.1, samples=512, rows=tuple(rows), notes=(), whole=True))
    told = texts(visit("sensitivity", experiment=experiment))
    assert "To lose half of its channels costs no layer any accuracy." in told


def test_an_experiment_without_a_baseline_is_not_mistaken_for_another_one(
    visit: Open, stage: Stage, experiment: str
) -> None:
    """Its link stands on the model's page and in New run as soon as a run is queued."""
    keep(stage)
    with session.writing() as opened:
        old = next(e for e in runs.experiments(opened) if e.id == experiment)
        data = datasets.add(opened, name="new", source="sample", upload_sha256=None)
        queued = runs.experiment_of(opened, old.model_id, data.id).id
    page = visit("sensitivity", experiment=queued)
    assert page.query_params["experiment"] in (queued, [queued])
    assert page.info[0].value == "Its baseline has not been measured yet."
    assert not page.dataframe
    assert not page.button
    assert visit("sensitivity").query_params["experiment"] in (experiment, [experiment])


def test_one_layer_so_far_is_one(visit: Open, stage: Stage) -> None:
    keep_table(stage, Table(accuracy=0.95, samples=512, rows=rows()[:1]))
    told = texts(visit("sensitivity"))
    assert " · 1 layer so far" in told
    assert "Without half of its channels conv1 changes accuracy by −15.0 points." in told
    alike = tuple(row.model_copy(update={"cells": cells(0.9, 0.9, 0.9)}) for row in rows())
    keep_table(stage, Table(accuracy=0.9, samples=512, rows=alike))
    assert "Without half of its channels every layer changes accuracy by 0.0 points." in texts(
        visit("sensitivity")
    )


def test_a_divergence_is_never_told_in_powers_of_ten() -> None:
    texts = [VIEWS["kl"].text(value) for value in (21.4, 0.032, 0.0012, 5e-6, 0.0)]
    assert texts == ["21", "0.032", "0.0012", "<0.001", "0"]


def test_what_one_sample_does_stays_pale() -> None:
    same = Table(accuracy=0.948, samples=500, rows=(Row(layer="conv1", width=8, cells=cells(0.95)),))
    colour = sensitivity_map(same, "accuracy").to_dict()["layer"][0]["encoding"]["color"]
    assert colour["condition"]["scale"]["domain"] == [-2, 0, 2]
    far = Table(accuracy=0.95, samples=500, rows=(Row(layer="conv1", width=8, cells=cells(0.45)),))
    colour = sensitivity_map(far, "accuracy").to_dict()["layer"][0]["encoding"]["color"]
    assert colour["condition"]["scale"]["domain"] == pytest.approx([-50, 0, 50])


@pytest.mark.parametrize("view", VIEWS)
def test_a_table_without_a_number_is_drawn(visit: Open, stage: Stage, view: str) -> None:
    """No cell yet; then none that could be measured."""
    empty = tuple(row.model_copy(update={"cells": ()}) for row in rows())
    keep_table(stage, Table(accuracy=0.95, samples=512, rows=empty))
    assert visit("sensitivity", by=view).dataframe[0].value["Layer"].tolist()[0] == "conv1"
    failed = tuple(row.model_copy(update={"cells": (Cell(change=INT8, why="It cannot."),)}) for row in rows())
    keep_table(stage, Table(accuracy=0.95, samples=512, rows=failed))
    assert visit("sensitivity", by=view).dataframe[0].value[INT8].isna().all()


def test_a_choice_leads_to_a_recipe(visit: Open, stage: Stage, experiment: str, visited: Visited) -> None:
    keep(stage)
    recipe = {"name": "Mine", "steps": [{"method": "structured_pruning", "amount": 0.4}]}
    page = visit(
        "sensitivity", experiment=experiment, recipe=json.dumps(recipe), runtime="ncnn", machine="pi5"
    )
    page.selectbox[1].set_value("conv3").run()
    page.selectbox[2].set_value(pruned_by(0.25)).run()
    page.button[-1].click().run()
    place, query = visited[-1]
    assert place == "views/new_run.py"
    assert query is not None
    assert (query["runtime"], query["machine"]) == ("ncnn", "pi5")
    made = json.loads(query["recipe"])
    assert made["name"] == "Mine"
    assert (made["steps"][0]["amount"], made["steps"][0]["layer_amounts"]) == (0.4, {"conv3": 0.25})
    whole(made)  # New run takes it


def test_a_layer_in_a_new_recipe_and_another_one_in_the_same() -> None:
    empty: Plain = {"name": "conv1 50 %", "steps": []}
    once = with_layer(empty, "conv1", 0.5)
    assert once is not None
    (step,) = once["steps"]
    assert (step["amount"], step["round_to"], step["layer_amounts"]) == (0.0, 1, {"conv1": 0.5})
    twice = with_layer(once, "conv3", 0.25)
    assert twice is not None
    assert twice["steps"][0]["layer_amounts"] == {"conv1": 0.5, "conv3": 0.25}
    assert chips(twice) == ["Structured pruning, 2 layers"]
    assert empty["steps"] == []
    both = with_layer(twice, "fc", None)
    assert both is not None
    assert [step["method"] for step in both["steps"]] == ["structured_pruning", "quantization"]
    again = with_layer(both, "conv1", None)
    assert again is not None
    assert again["steps"][1]["keep_in_float"] == "fc, conv1"
    whole(again)
