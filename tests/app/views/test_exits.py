"""The page Exits says what follows from the kept logits, and makes points that do what it said."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from streamlit.testing.v1 import AppTest

from app import numbers, session
from app.components.export_dialog import lines_to_change, lines_to_run
from app.exits import explored
from db import variants
from db.models import Run, Stage, Variant
from tests.app.views.conftest import Open
from tests.app.views.test_tradeoffs import texts
from tests.support import exits
from workers.calibration import path_times
from workers.work.rows import threshold_columns

Arrays = dict[str, np.ndarray]
FAST = (0.35, 0.5)
SURE = (0.75, 0.9)


def read() -> tuple[Variant, Stage, Run]:
    with session.reading() as opened:
        return variants.with_exits(opened)[0]


def kept(stage: Stage) -> tuple[Arrays, dict[str, Any]]:
    assert stage.exit_logits_sha256 is not None
    assert stage.exits_sha256 is not None
    store = session.artifacts()
    report = json.loads(store.path(stage.exits_sha256).read_text())
    with np.load(store.path(stage.exit_logits_sha256)) as found:
        return dict(found), report


def by_hand(stage: Stage, thresholds: tuple[float, ...], split: str = "validation") -> dict[str, Any]:
    """Sample by sample, in float64."""
    arrays, report = kept(stage)
    right, taken = [], []
    for logits, label in zip(arrays[f"{split}_logits"], arrays[f"{split}_labels"], strict=True):
        place = len(thresholds)
        for exit_, threshold in enumerate(thresholds):
            scaled = logits[exit_].astype(float) / report["temperatures"][exit_]
            p = np.exp(scaled - scaled.max())
            if p.max() / p.sum() > threshold:
                place = exit_
                break
        taken.append(place)
        right.append(logits[place].argmax() == label)
    times = sorted(report["path_ms"][place] for place in taken)
    return {
        "accuracy": float(np.mean(right)),
        "share": [taken.count(place) / len(taken) for place in range(len(thresholds) + 1)],
        "mean_ms": float(np.mean(times)),
        "p99_ms": times[int(np.ceil(0.99 * (len(times) - 1)))],
    }


def told(page: AppTest) -> list[str]:
    return [metric.value.replace("\u00a0", " ") for metric in page.metric]


def expected(found: dict[str, Any]) -> list[str]:
    return [f"{100 * found['accuracy']:.2f} %", f"{found['mean_ms']:.3f} ms", f"{found['p99_ms']:.3f} ms"]


def link(thresholds: tuple[float, ...]) -> str:
    return ",".join(map(str, thresholds))


def test_without_exits_the_page_says_what_to_do(visit: Open, experiment: str) -> None:  # noqa: ARG001
    assert "No model with early exits yet" in texts(visit("exits"))


def test_numbers_are_those_of_a_count_by_hand(visit: Open, stage: Stage) -> None:
    page = visit("exits")
    _, report = kept(stage)
    found = by_hand(stage, tuple(report["thresholds"]))
    assert found["accuracy"] == pytest.approx(report["accuracy"])
    assert told(page) == expected(found)
    assert 0.05 < found["share"][0] < 1
    page = visit("exits", thresholds=link(FAST))
    found = by_hand(stage, FAST)
    assert told(page) == expected(found)
    words = texts(page).replace("\u00a0", " ")
    assert f"{100 * found['share'][0]:.1f} % of the samples leave here" in words
    assert f"Test: {100 * by_hand(stage, FAST, 'test')['accuracy']:.2f} %" in words


@pytest.mark.parametrize(
    ("baseline", "words"), [(0.5, "the model as uploaded"), (None, "the longest way through this file")]
)
def test_latency_is_against_the_model_as_uploaded(
    visit: Open, stage: Stage, tmp_path: Path, baseline: float | None, words: str
) -> None:
    """Fails when heads and branches of the longest way flatter it. baseline: of the longest way's time."""
    _, report = kept(stage)
    report["baseline_ms"] = baseline and baseline * report["path_ms"][2]
    (tmp_path / "exits.json").write_text(json.dumps(report))
    with session.writing() as opened:
        opened.get_one(Stage, stage.id).exits_sha256 = session.artifacts().add(tmp_path / "exits.json")
    page = visit("exits", thresholds=link(FAST))
    ratio = by_hand(stage, FAST)["mean_ms"] / (report["baseline_ms"] or report["path_ms"][2])
    assert page.metric[1].delta == numbers.faster(ratio)
    assert f"latency against {words}" in texts(page)


def test_the_gallery_shows_who_left_early_late_and_with_another_answer(visit: Open, stage: Stage) -> None:
    """Counted sample by sample, in float64."""
    page, (arrays, report) = visit("exits", thresholds=link(SURE)), kept(stage)
    labels, said = arrays["validation_labels"], arrays["validation_logits"].argmax(axis=2)
    scores, left = scores_and_ways(arrays["validation_logits"], report["temperatures"])
    changed = said[np.arange(len(labels)), left] != said[:, 2]
    worse = changed & (said[:, 2] == labels)
    title = f"Another answer by leaving early: {changed.sum():,} samples, {worse.sum():,} for the worse"
    assert changed.any()
    assert title in texts(page)
    found = explored(stage)
    assert found is not None
    outcome = found.at(SURE)
    assert sorted(outcome.changed) == list(np.flatnonzero(changed))
    assert list(worse[outcome.changed]) == sorted(worse[outcome.changed], reverse=True)
    for rows, exit_, way, best in ((outcome.early(8), 0, 0, max), (outcome.late(8), 1, 2, min)):
        assert len(set(rows)) == 8 == min(8, (left == way).sum())
        per_class = {n: scores[(labels == n) & (left == way), exit_] for n in range(10)}
        firsts = [n for n in per_class if len(per_class[n])][:8]
        assert sorted(labels[rows[: len(firsts)]]) == firsts
        for row in rows[: len(firsts)]:
            assert left[row] == way
            assert scores[row, exit_] == pytest.approx(best(per_class[int(labels[row])]))


def scores_and_ways(logits: np.ndarray, temperatures: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) largest probabilities of the exits, and (N,) where a sample leaves at SURE, from 0."""
    scaled = logits[:, :2].astype(float) / np.array(temperatures[:2])[:, None]
    odds = np.exp(scaled - scaled.max(axis=2, keepdims=True))
    scores = odds.max(axis=2) / odds.sum(axis=2)
    return scores, np.where(scores[:, 0] > SURE[0], 0, np.where(scores[:, 1] > SURE[1], 1, 2))


def test_a_moved_slider_moves_the_numbers_and_the_url(visit: Open, stage: Stage) -> None:
    page = visit("exits", thresholds=link(FAST))
    found = explored(stage)
    assert found is not None
    options = sorted(found.grids[0])
    page.select_slider[0].set_value(options[len(options) // 2]).run()
    thresholds = tuple(float(value) for value in page.query_params["thresholds"].split(","))
    assert thresholds[0] != FAST[0]
    assert thresholds[1] == pytest.approx(FAST[1])
    assert told(page) == expected(by_hand(stage, thresholds))


@pytest.mark.parametrize("wrong", ["0.5", "a,b", "nan,0.1", "-1,0.2"])
def test_thresholds_that_cannot_be_are_those_of_the_point(visit: Open, stage: Stage, wrong: str) -> None:
    page = visit("exits", thresholds=wrong)
    assert told(page) == expected(by_hand(stage, tuple(kept(stage)[1]["thresholds"])))


def solved(page: AppTest, name: str, limit: float) -> tuple[float, ...]:
    next(box for box in page.number_input if box.key and box.key.startswith(name)).set_value(limit).run()
    next(b for b in page.button if b.key and b.key.startswith(f"solve-{name}")).click().run()
    assert not page.exception
    return tuple(float(value) for value in page.query_params["thresholds"].split(","))


def test_limits_set_the_thresholds(visit: Open, stage: Stage) -> None:
    page = visit("exits")
    full = by_hand(stage, (1.0, 1.0))["accuracy"]
    for points in (0.0, 1.0, 3.0):
        found = by_hand(stage, solved(page, "max_drop", points))
        assert found["accuracy"] >= full - points / 100 - 1e-9
        assert told(page) == expected(found)
    _, report = kept(stage)
    limit = (report["path_ms"][0] + report["path_ms"][2]) / 2
    found = by_hand(stage, solved(page, "max_ms", limit))
    assert found["mean_ms"] <= limit
    before = told(page)
    solved(page, "max_ms", report["path_ms"][0] / 2)
    assert "No thresholds are that fast" in page.warning[0].value
    assert told(page) == before


def test_moved_thresholds_carry_no_promise(visit: Open, stage: Stage, tmp_path: Path) -> None:
    _, report = kept(stage)
    report["guarantee"] |= {"thresholds": report["thresholds"], "worse": 1, "sentence": "Promised."}
    (tmp_path / "exits.json").write_text(json.dumps(report))
    with session.writing() as opened:
        opened.get_one(Stage, stage.id).exits_sha256 = session.artifacts().add(tmp_path / "exits.json")
    assert "Promised." in texts(visit("exits"))
    moved = texts(visit("exits", thresholds=link(FAST)))
    assert "Promised." not in moved
    assert "Moved thresholds carry no promise." in moved


def save(page: AppTest, woken: list[str]) -> None:
    next(button for button in page.button if button.label == "Save as point").click().run()
    assert not page.exception
    exits.do(session.settings(), woken[-1])


def test_saved_thresholds_are_a_point_that_does_what_the_page_said(
    visit: Open, stage: Stage, woken: list[str]
) -> None:
    thresholds = tuple(threshold_columns(FAST).values())
    page = visit("exits", thresholds=link(thresholds))
    said = told(page)
    save(page, woken)
    with session.reading() as opened:
        found = variants.with_exits(opened)
    assert len(found) == 2
    saved = only_saved()
    assert saved.thresholds == {"exit_1": thresholds[0], "exit_2": thresholds[1]}
    assert same_as_the_file(saved, stage) == said[0]
    numbers = {(m.name, m.split): m for m in saved_numbers(saved.id)}
    hand = by_hand(stage, thresholds)
    assert numbers["accuracy", "validation"].value == hand["accuracy"]
    assert numbers["accuracy", "test"].value == by_hand(stage, thresholds, "test")["accuracy"]
    assert numbers["accuracy", "validation"].marks == ["from exit logits"]
    assert numbers["latency_mean", "validation"].value == pytest.approx(hand["mean_ms"])
    assert ("latency_p50", "validation") not in numbers
    report = report_of(saved)
    assert (report["thresholds"], report["batches"], report["guarantee"]) == (list(thresholds), [], None)
    assert numbers["latency_mean", "validation"].marks == ["from path times", *report["times"]["marks"]]
    timed = report["times"]
    assert timed["mix_ms"] == pytest.approx(np.dot(timed["share"], timed["path_ms"]))
    assert timed["share"] == pytest.approx(hand["share"], abs=0.1)  # the stream may not come to all samples
    assert timed["stream"]["calls"] >= 96
    differs = abs(timed["stream"]["mean_ms"] / timed["mix_ms"] - 1) > 0.03
    assert ("paths disagree" in timed["marks"]) == differs
    assert report["parity"]["samples"] == 1000
    assert numbers["accuracy", "validation"].target == report["target"]
    again(stage, thresholds, woken)
    page = visit("exits", variant=saved.id)
    assert told(page) == said
    assert next(button for button in page.button if button.label == "Save as point").disabled
    table = visit("tradeoffs").dataframe[0].value
    assert "Early exits · exits at 0.35 / 0.5" in set(table["label"])


def report_of(saved: Variant) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(session.artifacts().path(saved.exits_sha256 or "").read_text())
    return found


def only_saved() -> Variant:
    with session.reading() as opened:
        return next(v for v, *_ in variants.with_exits(opened) if v.file_sha256)


@pytest.mark.usefixtures("stage")
def test_a_stream_that_takes_longer_than_its_ways_out_marks_the_point(
    visit: Open, woken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = path_times._replay
    monkeypatch.setattr(path_times, "_replay", lambda *given: replay(*given) * (3, 1))
    page = visit("exits", thresholds=link(FAST))
    assert "At these thresholds nothing was timed yet" in texts(page)
    save(page, woken)
    saved = only_saved()
    timed = report_of(saved)["times"]
    assert timed["stream"]["mean_ms"] > 1.5 * timed["mix_ms"]
    mean = next(m for m in saved_numbers(saved.id) if m.name == "latency_mean")
    assert "paths disagree" in mean.marks
    words = texts(visit("exits", variant=saved.id)).replace("\u00a0", " ")
    assert f"{timed['stream']['calls']:,} real samples took {timed['stream']['mean_ms']:.3f} ms" in words
    assert f"{timed['mix_ms']:.3f} ms by the times of its ways out: they differ by more than 3 %" in words


def test_path_times_of_another_machine_explain_no_stream(
    visit: Open, stage: Stage, woken: list[str], tmp_path: Path
) -> None:
    _, report = kept(stage)
    report["target"] |= {"host": "elsewhere"}
    (tmp_path / "exits.json").write_text(json.dumps(report))
    with session.writing() as opened:
        opened.get_one(Stage, stage.id).exits_sha256 = session.artifacts().add(tmp_path / "exits.json")
    save(visit("exits", thresholds=link(FAST)), woken)
    found = report_of(only_saved())
    assert found["times"] is None
    assert any("No stream was timed" in note for note in found["notes"])


def test_batches_are_held_against_the_way_to_the_end(visit: Open, stage: Stage) -> None:
    page = visit("exits")
    table = page.table[0].value
    _, report = kept(stage)
    assert list(table["Batch"]) == ["1", "8", "32"]
    for timed, (_, row) in zip(report["batches"], table.iterrows(), strict=True):
        full = timed["full"]["mean_ms"]
        assert float(row["Never early"].split("\u00a0")[0]) == pytest.approx(full, rel=0.05)
        for name in ("p50", "p90"):  # of the file, not of the executor, which is not what Export hands out
            got = float(row[name].split("\u00a0")[0])
            assert got == pytest.approx(timed["file"][f"{name}_ms"], rel=0.05)
        for name, how in (("The file", "file"), ("Rows apart", "executor")):
            if (timed["batch"], how) == (1, "executor"):
                assert row[name] == "–"
                continue
            own = timed[how]["mean_ms"]
            assert float(row[name].split("\u00a0")[0]) == pytest.approx(own, rel=0.05)
            assert (row[name].endswith("slower)"), row[name].endswith("faster)")) == (
                own / full > 1.05, own / full < 1 / 1.05,
            )  # fmt: skip
    times = report["times"]
    assert f"{times['stream']['calls']:,} real samples took" in texts(page)
    assert "not those above" not in texts(page)
    assert "not those above" in texts(visit("exits", thresholds=link(FAST)))


def saved_numbers(variant: str) -> list[Any]:
    with session.reading() as opened:
        found = variants.whole(opened, variant)
    assert found is not None
    return list(found[0].measurements)


def same_as_the_file(saved: Variant, stage: Stage) -> str:
    """Accuracy of the stored file in plain ONNX Runtime, one picture at a time."""
    run = ort.InferenceSession(session.artifacts().path(saved.file_sha256 or ""))
    data = np.load(session.settings().data / "digits.npz")
    images = data["images"][data["split"] == "validation"][:, None].astype(np.float32) / 255
    labels = data["labels"][data["split"] == "validation"]
    outputs = [run.run(["logits", "exit"], {"input": image[None]}) for image in images]
    taken = [int(exit_[0]) for _, exit_ in outputs]
    share = by_hand(stage, tuple((saved.thresholds or {}).values()))["share"]
    assert [taken.count(n) / len(taken) for n in (1, 2, 3)] == pytest.approx(share, abs=0.002)
    return f"{100 * np.mean([logits.argmax() for logits, _ in outputs] == labels):.2f} %"


def again(stage: Stage, thresholds: tuple[float, ...], woken: list[str]) -> None:
    """A second job for the same thresholds adds nothing."""
    from app.queueing import queue_thresholds

    queue_thresholds(stage.id, read()[0].id, thresholds)
    exits.do(session.settings(), woken[-1])
    with session.reading() as opened:
        assert len(variants.with_exits(opened)) == 2


def test_the_lines_beside_an_export_run(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(session.artifacts().path(stage.file_sha256), tmp_path / "net.onnx")
    data = np.load("digits.npz")
    rows = data["split"] == "validation"
    np.save("pictures.npy", data["images"][rows][..., None])
    lines = lines_to_run("net.onnx", exits.LOOKS.model_dump(), exits=True)
    assert len(lines.splitlines()) <= 10
    accuracies = []
    for thresholds in (tuple(kept(stage)[1]["thresholds"]), (0.9, kept(stage)[1]["thresholds"][1])):
        exec(lines, {})
        answers = np.array(capsys.readouterr().out.split()).astype(int)
        accuracies.append((answers == data["labels"][rows]).mean())
        assert accuracies[-1] == by_hand(stage, thresholds)["accuracy"]
        exec(lines_to_change("net.onnx"), {})
    assert accuracies[0] != accuracies[1]
