"""Exits on the sample are faster than the model for what they may lose, and a static network that is really
made beside them gets the verdict that both files deserve."""

import time

import numpy as np
import onnxruntime as ort
import pytest

from app import session
from app.exits import explored
from db import runs
from db.models import Stage
from tests.app.views.conftest import Open
from tests.app.views.test_exits import FAST, by_hand, kept, link
from tests.app.views.test_tradeoffs import texts
from tests.support import exits


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Validation samples as the model takes them one by one, and their labels."""
    data = np.load(session.settings().data / "digits.npz")
    rows = data["split"] == "validation"
    return data["images"][rows][:, None, None].astype(np.float32) / 255, data["labels"][rows]


def opened(sha256: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(session.artifacts().path(sha256), options)


def answered(file: ort.InferenceSession, inputs: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds for all of them, one after another, and the answers."""
    start = time.perf_counter()
    logits = [file.run(["logits"], {"input": one})[0] for one in inputs]
    return time.perf_counter() - start, np.concatenate(logits).argmax(axis=1)


@pytest.mark.slow
def test_exits_on_the_sample_are_faster_than_the_model_and_lose_no_more_than_asked(stage: Stage) -> None:
    """By plain ONNX Runtime: the fastest of some rounds of each, since a round can only be disturbed."""
    with session.reading() as reading:
        whole = runs.whole(reading, stage.run_id)
    assert whole is not None
    uploaded, early = (opened(whole.stages[index].file_sha256) for index in (0, 1))
    inputs, labels = pictures()
    rounds = [(answered(uploaded, inputs), answered(early, inputs)) for _ in range(8)]
    before_s, after_s = (min(one[n][0] for one in rounds) for n in (0, 1))
    assert after_s < 0.8 * before_s
    right = [(rounds[0][n][1] == labels).mean() for n in (0, 1)]
    _, report = kept(stage)
    assert right[1] == report["accuracy"]
    assert right[1] >= report["full_accuracy"] - report["max_drop"] / 100
    assert right[1] >= right[0] - report["max_drop"] / 100 - 0.003
    assert report["mean_ms"] < report["baseline_ms"]


@pytest.mark.slow
def test_a_static_network_is_trained_measured_and_judged(visit: Open, stage: Stage, woken: list[str]) -> None:
    page = visit("exits", thresholds=link(FAST))
    next(button for button in page.button if button.label.startswith("Queue a static")).click().run()
    exits.do(session.settings(), woken[-1])
    with session.reading() as reading:
        run = next(run for run in runs.all_of(reading) if run.name.startswith("Static at"))
        whole = runs.whole(reading, run.id)
    assert whole is not None
    static = whole.stages[2]
    ratio = next(m.value for m in static.own.measurements if m.name == "latency_ratio")
    assert ratio is not None
    thresholds = alike(stage, ratio)
    inputs, labels = pictures()
    own = (answered(opened(static.file_sha256), inputs)[1] == labels).mean()
    hand = by_hand(stage, thresholds)
    difference = round(100 * (hand["accuracy"] - own), 1)
    verdict = (
        "neither wins"
        if difference == 0
        else f"{'exits win' if difference > 0 else 'the static network wins'} by {abs(difference):.1f} points"
    )
    words = texts(visit("exits", thresholds=link(thresholds))).replace("\u00a0", " ")
    assert (
        f"the static network has {100 * own:.1f} %, the exits {100 * hand['accuracy']:.1f} %: {verdict}."
        in words
    )


def alike(stage: Stage, ratio: float) -> tuple[float, float]:
    """Thresholds at which the exits take that part of the baseline's time, within 5 %."""
    found, (_, report) = explored(stage), kept(stage)
    assert found is not None
    wanted = ratio * report["baseline_ms"]
    tried = [(one, report["never"]) for one in sorted(found.grids[0])]
    tried += [point.thresholds for point in found.frontier.points]  # type: ignore[misc]
    best = min(tried, key=lambda both: abs(found.at(both).point.mean_ms - wanted))
    assert found.at(best).point.mean_ms == pytest.approx(wanted, rel=0.05)
    return best
