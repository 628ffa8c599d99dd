"""The page Throughput: without a point, before a grid, with one."""

import pytest

from app import session
from app.components.plain import plain
from db import analyses, jobs, runs
from db.models import Stage
from tests.app.views.conftest import Open
from tests.app.views.test_tradeoffs import texts
from workers.throughput.grid import Cell, Grid, Way

TARGET = {"host": "3f2a91bc", "device": "cpu", "runtime": "onnxruntime", "version": "1.32.0"}
#: What a runtime says of a file names its nodes.
NOTE = "Batch 8 failed: ![x](http://host/p.png)."


@pytest.fixture
def stage(experiment: str) -> Stage:
    with session.reading() as opened:
        run = next(run for run in runs.of_experiment(opened, experiment) if run.name == "Pruned by 50 %")
        whole = runs.whole(opened, run.id)
        assert whole is not None
        return whole.stages[1]


def keep(stage: Stage, *, file_sha256: str) -> None:
    cells = (
        cell(1, 1, 1, 300.0, 3.3),
        cell(2, 1, 4, 3120.4, 4.13),
        cell(2, 1, 8, 4000.0, 9.0),
        Cell(way=Way(threads=2, streams=1, batch=8)),
    )
    grid = Grid(cores=2, seconds=60, cells=cells, notes=(NOTE,))
    document = {"file_sha256": file_sha256, "grid": grid.model_dump(mode="json")}
    with session.writing() as opened:
        analyses.save(opened, "throughput", "key", stage_id=stage.id, target=TARGET, document=document)


def cell(streams: int, threads: int, batch: int, rate: float, p99_ms: float) -> Cell:
    way = Way(threads=threads, streams=streams, batch=batch)
    return Cell(
        way=way, calls=700, samples_per_s=rate, low=rate, high=rate, p50_ms=1, p90_ms=2, p99_ms=p99_ms
    )


def test_without_a_point_it_leads_to_the_chart(visit: Open) -> None:
    assert "Choose a point in Trade-offs" in visit("throughput").info[0].value
    assert "Choose a point" in visit("throughput", variant="gone").info[0].value


def test_a_grid_is_asked_for_once(visit: Open, stage: Stage, woken: list[str]) -> None:
    page = visit("throughput", variant=stage.own.id)
    page.selectbox[0].set_value(120).run()
    page.button[0].click().run()
    with session.reading() as opened:
        job = jobs.latest(opened, [stage.id], "throughput")[stage.id]
    assert woken == [job.id]
    assert job.request == {"variant": stage.own.id, "seconds": 120.0}
    assert [button.label for button in page.button] == ["Cancel"]


def test_the_best_under_the_limit_of_the_address_is_named(visit: Open, stage: Stage) -> None:
    keep(stage, file_sha256=stage.file_sha256)
    page = visit("throughput", variant=stage.own.id, limit="5")
    best = "Best under 5 ms: 2 streams × 1 thread, batch 4: 3,120 samples/s, p99 4.13\u00a0ms, 10.4x what 1"
    assert best in texts(page)
    assert plain(NOTE) in texts(page)
    page.number_input[0].set_value(None).run()
    assert "Most samples at any latency: 2 streams × 1 thread, batch 8: 4,000 samples/s" in texts(page)
    assert "limit" not in page.query_params
    page.number_input[0].set_value(2.0).run()
    assert "Nothing that was measured stays under 2 ms; the lowest p99 is 3.30\u00a0ms" in texts(page)
    assert page.query_params["limit"] in ("2", ["2"])
    table = page.dataframe[0].value
    assert list(table["Samples/s"])[:3] == [4000.0, 3120.4, 300.0]
    assert list(table["Marks"]) == ["", "", "", "not measured"]
    assert page.button[0].label == "Measure again"


def test_a_grid_of_another_file_is_not_shown(visit: Open, stage: Stage) -> None:
    keep(stage, file_sha256="of another point")
    page = visit("throughput", variant=stage.own.id)
    assert not page.dataframe
    assert page.button[0].label == "Measure"
