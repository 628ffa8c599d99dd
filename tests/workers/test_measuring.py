"""Stages in several places: made-up runtimes beside the real one, whose speed and answers are known."""

import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tests.support.arrays import candidate, uploaded
from tests.support.measures import targets_asked
from tests.workers.test_pipeline import PRUNE, data, make
from workers import measuring, pipeline, turns
from workers.base import Measurement, Place, Session, Target
from workers.calibration import calibrate
from workers.calibration.moving import read_report
from workers.catalog import MEASURES
from workers.errors import ModelRefused
from workers.measures.latency import Latency, Timings
from workers.pipeline import CALIBRATED_HERE, Outcome, run
from workers.places import Choice
from workers.runtimes.onnxruntime import OnnxRuntime, OnnxRuntimeSession

EXIT = "{method: early_exit, exits: [relu_1], epochs: 1, head_epochs: 1, batch_size: 16}"
NOTE = "The times that this step chose by were taken elsewhere."


class MadeUp(OnnxRuntime):
    """ONNX Runtime under another name, so much slower per call, with its logits changed."""

    def __init__(self, name: str, slower_s: float = 0.0, flip: float = 0.0, refuses: str = "") -> None:
        super().__init__()
        self.name, self.slower_s, self.flip, self.refuses = name, slower_s, flip, refuses

    def id(self) -> str:  # type: ignore[override]
        return self.name

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> Any:
        if self.refuses and self.refuses in str(file):
            raise ModelRefused(file.name, f"{self.name} knows no such operator.", "Use another runtime.")
        return Changed(super().open(file, threads=threads, optimize=optimize), self)


class Changed(Session):
    def __init__(self, session: OnnxRuntimeSession, runtime: MadeUp) -> None:
        self.session, self.runtime = session, runtime

    def run(self, inputs: np.ndarray) -> np.ndarray:
        end = time.perf_counter() + self.runtime.slower_s
        while time.perf_counter() < end:
            pass
        logits = self.session.run(inputs)
        return np.asarray(logits + self.runtime.flip * np.arange(logits.shape[-1], dtype=np.float32))


@dataclasses.dataclass(frozen=True)
class Quick(Latency):
    seconds: float = 0.0


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "MEASURES", MappingProxyType({**MEASURES, "latency": Quick}))
        patch.setattr(calibrate, "BATCHES", (1,))
        patch.setattr(pipeline, "calibrate", partial(calibrate.calibrate, seconds=0.02))
        patch.setattr(turns, "LOCK_FOLDER", str(tmp_path_factory.mktemp("turns")))
        yield


def place(runtime: OnnxRuntime) -> Place:
    return Place(runtime, Target(host="here", runtime=runtime.id(), version="1"))


def carried_out(folder: Path, *runtimes: OnnxRuntime, **choice: Any) -> Outcome:
    places = tuple(map(place, runtimes))
    return run(make(folder, PRUNE, choice=Choice(places, places[0], **choice)))


def taken(outcome: Outcome, runtime: str, name: str, index: int = 1) -> Measurement | None:
    found = outcome.stages[index].measurements
    return next((m for m in found if m.target and m.target.runtime == runtime and m.name == name), None)


def numbers(measurement: Measurement | None) -> Measurement:
    assert measurement is not None
    return measurement


def test_every_place_is_a_target_with_its_own_accuracy_and_latency(tmp_path: Path) -> None:
    """Fails when the accuracy is that of the first place, or what is the same everywhere is taken twice."""
    slow = MadeUp("slow", slower_s=0.002)
    outcome = carried_out(tmp_path, OnnxRuntime(), slow, fastest=True)
    for name in ("onnxruntime", "slow", "fastest"):
        for index in (0, 1):
            assert numbers(taken(outcome, name, "accuracy", index)).value is not None
        assert numbers(taken(outcome, name, "latency_ratio", 0)).value == 1
    assert numbers(taken(outcome, "slow", "latency_p50")).value > 2  # type: ignore[operator]
    for stage in outcome.stages:
        names = [m.name for m in stage.measurements if m.target is None]
        assert sorted(names) == ["macs", "parameters", "precision", "size", "size_compressed"]
    best = numbers(taken(outcome, "fastest", "latency_p50"))
    assert best.value == numbers(taken(outcome, "onnxruntime", "latency_p50")).value
    assert best.marks[0] == numbers(taken(outcome, "fastest", "accuracy")).marks[0] == "onnxruntime 1"
    assert best.target is not None
    assert best.target.engine == "fastest of onnxruntime 1, slow 1"


def test_the_fastest_alone_has_no_other_points(tmp_path: Path) -> None:
    outcome = carried_out(tmp_path, MadeUp("slow", slower_s=0.002), OnnxRuntime(), each=False, fastest=True)
    for stage in outcome.stages:
        targets = {m.target.runtime for m in stage.measurements if m.target}
        assert targets == {"fastest"}
    assert numbers(taken(outcome, "fastest", "latency_ratio")).marks[0] == "onnxruntime 1"


def test_other_answers_than_the_files_are_told_and_not_timed(tmp_path: Path) -> None:
    """The quickest one is wrong: it must not be the fastest."""
    wrong = MadeUp("wrong", flip=0.5)
    outcome = carried_out(tmp_path, MadeUp("slow", slower_s=0.001), wrong, each=False, fastest=True)
    assert numbers(taken(outcome, "fastest", "latency_ratio")).marks[0] == "slow 1"
    outcome = carried_out(tmp_path, OnnxRuntime(), wrong, fastest=True)
    for name in ("accuracy", "latency_p50"):
        refused = numbers(taken(outcome, "wrong", name))
        assert refused.value is None
        assert "gives other answers than the file: logits differ by" in refused.marks[0]
    assert taken(outcome, "wrong", "latency_ratio") is None


def test_a_stage_that_a_runtime_cannot_run_is_no_error(tmp_path: Path) -> None:
    first = carried_out(tmp_path, OnnxRuntime())
    picky = MadeUp("picky", refuses=first.stages[1].key)
    outcome = carried_out(tmp_path, OnnxRuntime(), picky)
    assert numbers(taken(outcome, "picky", "latency_ratio", 0)).value == 1
    assert numbers(taken(outcome, "picky", "latency_p50")).marks == ("picky knows no such operator.",)
    assert numbers(taken(outcome, "onnxruntime", "latency_ratio")).value is not None


def test_where_nothing_runs_there_are_only_sentences(tmp_path: Path) -> None:
    outcome = carried_out(tmp_path, MadeUp("picky", refuses="model"))
    for index in (0, 1):
        assert numbers(taken(outcome, "picky", "accuracy", index)).value is None
        assert numbers(taken(outcome, "picky", "latency_p50", index)).value is None
    assert outcome.warnings == ()


def test_what_is_kept_of_a_place_is_used_for_that_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever comes first: alone, among all, as the fastest."""
    asked = targets_asked(monkeypatch)
    here, other = OnnxRuntime(), MadeUp("other", slower_s=0.002)
    whole = carried_out(tmp_path, here, other, fastest=True)
    assert sorted(target.runtime for target in asked) == ["onnxruntime"] * 2 + ["other"] * 2
    alone = carried_out(tmp_path, other)
    carried_out(tmp_path, here, other, each=False, fastest=True)
    assert len(asked) == 4
    assert [m for m in alone.stages[0].measurements if m.target is None] == [
        m for m in whole.stages[0].measurements if m.target is None
    ]


def test_an_uploaded_onnx_in_torch_says_what_it_needs(tmp_path: Path) -> None:
    from workers.runtimes.torch_eager import TorchEager

    file = run(make(tmp_path / "first")).stages[0].file
    model = dataclasses.replace(candidate(None), onnx=file)
    eager = Place(TorchEager(), Target(host="here", runtime="torch_eager"))
    usual = place(OnnxRuntime())
    outcome = run(make(tmp_path, model=model, data=data(), choice=Choice((usual, eager), usual)))
    assert "no `model.pt2` beside it" in numbers(taken(outcome, "torch_eager", "latency_p50", 0)).marks[0]
    assert numbers(taken(outcome, "onnxruntime", "accuracy", 0)).value is not None


def test_a_step_that_chose_by_time_elsewhere_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.catalog import METHODS

    assert NOTE not in carried_out(tmp_path / "one", OnnxRuntime(), note=NOTE).stages[1].notes
    monkeypatch.setattr(METHODS["structured_pruning"], "depends_on_target", property(lambda _: True))
    assert NOTE in carried_out(tmp_path / "two", OnnxRuntime(), note=NOTE).stages[1].notes


def test_with_exits_the_mean_compares_where_they_were_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the mean of one place gets into the numbers of another."""
    monkeypatch.setattr(Timings, "marks", lambda *_: ("throttled",))
    here, other = place(OnnxRuntime()), place(MadeUp("other"))
    choice = Choice((here, other), here, fastest=True)
    stage = run(make(tmp_path, EXIT, model=uploaded(), target=here.target, choice=choice)).stages[1]
    report = read_report(stage.file.with_name("exits.json"))
    assert report.target == here.target
    assert report.baseline_ms is not None
    found = {
        name: [m for m in stage.measurements if m.target and m.target.runtime == name]
        for name in ("onnxruntime", "other", "fastest")
    }
    ratios = {name: [m for m in taken if m.name == "latency_ratio"] for name, taken in found.items()}
    (own,), (others,), (fastest,) = ratios.values()
    assert own.value == report.mean_ms / report.baseline_ms
    assert "from path times" in own.marks
    assert "throttled" in own.marks
    assert own.low is not None
    assert own.high is not None
    assert own.low <= own.value <= own.high
    for ratio in (others, fastest):
        assert "from path times" not in ratio.marks
        assert ratio.low is not None
    means = {m.target: m for m in stage.measurements if m.name == "latency_mean"}
    assert means.keys() == {here.target, other.target, fastest.target}
    assert means[here.target].value == report.mean_ms
    assert means[here.target].low is not None
    assert all(means[ratio.target].low is not None for ratio in (others, fastest))


def test_exits_of_a_run_elsewhere_are_calibrated_in_onnx_runtime_and_say_so(tmp_path: Path) -> None:
    other = place(MadeUp("other"))
    job = make(
        tmp_path,
        EXIT,
        model=uploaded(),
        runtime=other.runtime,
        target=other.target,
        choice=Choice((other,), other),
    )
    stage = run(job).stages[1]
    target = read_report(stage.file.with_name("exits.json")).target
    assert (target.host, target.runtime, target.version) == ("here", "onnxruntime", OnnxRuntime.version())
    assert {m.target.runtime for m in stage.measurements if m.target} == {"other"}
    assert {m.name for m in stage.measurements} >= {"accuracy", "latency_p50", "latency_ratio"}
    assert stage.notes.count(CALIBRATED_HERE) == 1
