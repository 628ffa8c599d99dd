"""Points of several runtimes on both databases: no number of one gets into a row of another."""

import json
from typing import Any

from db import runs, variants
from db.session import reading, transaction
from tests.db.test_runs import STAGE, new_run

HERE: dict[str, Any] = {"host": "h", "device": "cpu", "runtime": "onnxruntime", "version": "1", "threads": 1}
THERE = HERE | {"runtime": "openvino"}


def number(
    name: str, value: float | None, target: dict[str, Any] | None, marks: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "name": name, "value": value, "unit": "u", "better": "lower", "target": target, "marks": list(marks),
        "split": None if target is None and name != "accuracy" else "validation",
    }  # fmt: skip


def filled(url: str, *numbers: dict[str, Any]) -> tuple[str, str]:
    """(experiment, run) with one stage that has these."""
    run_id = new_run(url)
    with transaction(url) as session:
        runs.save_stage(session, run_id, STAGE, numbers)
        run = runs.whole(session, run_id)
        assert run is not None
        return run.experiment_id, run_id


def rows(url: str, experiment: str) -> dict[str, dict[str, Any]]:
    """By runtime."""
    with reading(url) as session:
        found = variants.comparison(session, experiment)
    return {json.loads(row["target"])["runtime"]: row for row in found}


def test_every_target_has_its_own_accuracy(url: str) -> None:
    experiment, run_id = filled(
        url,
        number("size", 7, None),
        number("accuracy", 0.8, HERE),
        number("accuracy", 0.7, THERE),
        number("latency_p50", 2, HERE),
        number("latency_ratio", 1, HERE),
        number("latency_p50", 1, THERE),
        number("latency_ratio", 0.5, THERE, ("contended",)),
    )
    found = rows(url, experiment)
    assert {name: (row["accuracy"], row["ratio"], row["size_bytes"]) for name, row in found.items()} == {
        "onnxruntime": (0.8, 1, 7),
        "openvino": (0.7, 0.5, 7),
    }
    assert json.loads(found["openvino"]["marks"]) == ["contended"]
    with reading(url) as session:
        assert variants.last_numbers(session, [run_id])[run_id] == {"accuracy": 0.8, "latency_ratio": 1}


def test_what_a_runtime_could_not_run_is_told_and_an_accuracy_alone_is_no_point(url: str) -> None:
    experiment, run_id = filled(
        url,
        number("size", 7, None),
        number("accuracy", 0.8, HERE),
        number("accuracy", None, THERE, ("no such operator.",)),
        number("latency_p50", None, THERE, ("no such operator.",)),
    )
    found = rows(url, experiment)
    assert set(found) == {"openvino"}
    assert json.loads(found["openvino"]["refused"]) == ["no such operator."]
    assert found["openvino"]["ratio"] is None
    with reading(url) as session:
        assert variants.last_numbers(session, [run_id])[run_id] == {"accuracy": 0.8}


def test_the_fastest_is_told_with_the_accuracy_it_has_there(url: str) -> None:
    """The accuracy on the way, of the usual runtime, comes first and is not it."""
    fastest = HERE | {"runtime": "fastest"}
    experiment, run_id = filled(
        url,
        number("accuracy", 0.8, HERE),
        number("accuracy", 0.75, fastest),
        number("latency_p50", 1, fastest),
        number("latency_ratio", 0.5, fastest),
    )
    assert {name: row["accuracy"] for name, row in rows(url, experiment).items()} == {"fastest": 0.75}
    with reading(url) as session:
        assert variants.last_numbers(session, [run_id])[run_id] == {"accuracy": 0.75, "latency_ratio": 0.5}


def test_accuracies_of_long_ago_count_for_every_target(url: str) -> None:
    experiment, _ = filled(
        url, number("accuracy", 0.8, None), number("latency_p50", 1, HERE), number("latency_ratio", 1, HERE)
    )
    assert rows(url, experiment)["onnxruntime"]["accuracy"] == 0.8


def test_a_file_with_exits_has_its_mean_in_the_target_it_was_calibrated_for_and_no_other(url: str) -> None:
    """Fails when the mean of one target stands for the median of the other, or hides what was refused."""
    experiment, _ = filled(
        url,
        number("accuracy", 0.8, HERE),
        number("latency_p50", 2, HERE),
        number("latency_mean", 1.5, HERE),
        number("latency_ratio", 0.6, HERE, ("from path times",)),
        number("accuracy", 0.8, THERE),
        number("latency_p50", 3, THERE),
        number("latency_ratio", 0.3, THERE, ("contended",)),
        number("latency_p50", None, HERE | {"runtime": "ncnn"}, ("no such operator.",)),
    )
    found = rows(url, experiment)
    assert {name: (row["latency_ms"], row["ratio"]) for name, row in found.items()} == {
        "onnxruntime": (1.5, 0.6),
        "openvino": (3, 0.3),
        "ncnn": (None, None),
    }
    assert json.loads(found["openvino"]["marks"]) == ["contended"]
    assert json.loads(found["ncnn"]["refused"]) == ["no such operator."]


def test_numbers_taken_again_replace_those_of_the_same_target_alone(url: str) -> None:
    """Fails when the newest id stays the same: pages would go on showing the old numbers."""
    named = HERE | {"name": "pi5"}
    _, run_id = filled(url, number("accuracy", 0.8, HERE), number("latency_p50", 2, HERE))
    with reading(url) as session:
        run = runs.whole(session, run_id)
    assert run is not None
    own = run.stages[0].own.id
    newest = []
    for latency in (5.0, 4.0):
        with transaction(url) as session:
            taken = [number("accuracy", 0.7, named), number("latency_p50", latency, named)]
            variants.measured(session, own, taken)
        with reading(url) as session:
            newest.append(variants.newest_measurement(session))
    assert newest[1] > newest[0]
    with reading(url) as session:
        found = variants.whole(session, own)
    assert found is not None
    kept = {(m.name, (m.target or {}).get("name", "")): m.value for m in found[0].measurements}
    assert len(found[0].measurements) == len(kept)
    assert kept == {
        ("accuracy", ""): 0.8,
        ("latency_p50", ""): 2,
        ("accuracy", "pi5"): 0.7,
        ("latency_p50", "pi5"): 4,
    }
