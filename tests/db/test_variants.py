"""Points with other thresholds, on both databases."""

from typing import Any

from db import runs, variants
from db.session import reading, transaction
from tests.db.test_runs import STAGE, new_run, number

TARGET = {"host": "h", "device": "cpu", "runtime": "onnxruntime", "threads": 1, "batch": 1}
CALIBRATED, MOVED = {"exit_1": 0.9, "exit_2": 0.8}, {"exit_1": 0.5, "exit_2": 0.25}
EXITS = STAGE | {
    "index": 1, "method": "early_exit", "exits_sha256": "e" * 64, "exit_logits_sha256": "f" * 64,
    "answers_sha256": "a" * 64,
}  # fmt: skip


def timed(name: str, value: float) -> dict[str, Any]:
    return number(name, value) | {"split": "validation", "target": TARGET, "low": value - 0.1, "high": None}


def fill(url: str) -> str:
    """A run with a stage that has exits, and a point with other thresholds. Returns the stage's id."""
    run_id = new_run(url)
    numbers = [number("accuracy", 0.9), timed("latency_ratio", 0.5), timed("latency_p50", 3.0)]
    with transaction(url) as session:
        runs.save_stage(session, run_id, STAGE, numbers)
        stage = runs.save_stage(session, run_id, EXITS, numbers, CALIBRATED)
        moved = [number("accuracy", 0.8), timed("latency_ratio", 0.25), timed("latency_mean", 1.5)]
        columns = {"thresholds": MOVED, "file_sha256": "1" * 64, "exits_sha256": "2" * 64}
        variants.add(session, stage.id, columns, moved)
    return stage.id


def test_a_moved_point_has_files_of_its_own_and_else_those_of_its_stage(url: str) -> None:
    with reading(url) as session:
        assert not variants.any_exits(session)
        assert variants.with_exits(session) == []
    fill(url)
    with reading(url) as session:
        assert variants.any_exits(session)
        found = variants.with_exits(session)
    assert [variant.thresholds for variant, *_ in found] == [CALIBRATED, MOVED]
    told = [
        [variants.stored(v, s, "file"), variants.stored(v, s, "exits"), variants.stored(v, s, "answers")]
        for v, s, _ in found
    ]
    assert told == [["0" * 64, "e" * 64, "a" * 64], ["1" * 64, "2" * 64, "a" * 64]]


def test_a_point_is_found_by_exactly_its_thresholds(url: str) -> None:
    stage_id = fill(url)
    with transaction(url) as session:
        for thresholds in (CALIBRATED, MOVED):
            found = variants.at_thresholds(session, stage_id, thresholds)
            assert found is not None
            assert found.thresholds == thresholds
        assert variants.at_thresholds(session, stage_id, MOVED | {"exit_2": 0.26}) is None
        assert variants.at_thresholds(session, "another", MOVED) is None


def test_moved_points_are_compared_by_their_mean_and_do_not_speak_for_the_run(url: str) -> None:
    stage_id = fill(url)
    with transaction(url) as session:  # a run that ends after the point was saved
        runs.add_measurements(session, stage_id, [number("macs", 7.0)])
    with reading(url) as session:
        run = runs.all_of(session)[0]
        rows = variants.comparison(session, run.experiment_id)
        last = variants.last_numbers(session, [run.id])
        whole = runs.whole(session, run.id)
    plain, own, moved = sorted(rows, key=lambda row: (row["index"], row["moved"] or ""))
    assert [row["exits"] for row in (plain, own, moved)] == [0, 1, 1]
    assert (own["moved"], own["macs"], own["latency_ms"], own["latency_low"]) == (None, 7.0, 3.0, 2.9)
    assert moved["moved"].replace(" ", "") == '{"exit_1":0.5,"exit_2":0.25}'
    assert (moved["accuracy"], moved["ratio"], moved["latency_ms"]) == (0.8, 0.25, 1.5)
    assert moved["macs"] is None
    assert last == {run.id: {"accuracy": 0.9, "latency_ratio": 0.5}}
    assert whole is not None
    assert whole.stages[1].own.thresholds == CALIBRATED


def test_a_stage_that_becomes_another_file_takes_its_points_along(url: str) -> None:
    fill(url)
    with transaction(url) as session:
        run = runs.all_of(session)[0]
        runs.save_stage(session, run.id, {**EXITS, "file_sha256": "3" * 64}, [], CALIBRATED)
        assert [variant.thresholds for variant, *_ in variants.with_exits(session)] == [CALIBRATED]
