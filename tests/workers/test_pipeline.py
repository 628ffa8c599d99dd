"""What a run keeps, uses again and leaves behind. Latencies are not of interest here, and left out."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from filelock import FileLock

import workers
from tests.support.arrays import ArrayData, candidate, easy_data, small_net, uploaded
from tests.support.measures import targets_asked
from workers import measuring, pipeline, stages, turns
from workers.base import Candidate, ImagePreprocessing, Split, Target
from workers.catalog import MEASURES, METHODS
from workers.errors import DatasetRefused, GateFailed, StepFailed
from workers.exits.staging import cuts_of, staged_logits
from workers.graph.importing import open_model
from workers.graph.layer_roles import layer_weights
from workers.methods.fine_tuning import FineTuning
from workers.methods.structured_pruning import StructuredPruning
from workers.pipeline import Event, Job, Outcome, run
from workers.recipe import parse_recipe
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.stages import Stage, Store

PRUNE = "{method: structured_pruning, amount: 0.3, round_to: 2, recovery: none}"
TUNE = "{method: fine_tuning, epochs: 2, batch_size: 16}"
SPLITS: tuple[Split, ...] = ("validation", "test")


def data(validation: int = 48) -> ArrayData:
    """The test split is a copy of the validation split, shifted."""
    splits: dict[Split, tuple[torch.Tensor, torch.Tensor]] = dict(easy_data(validation=validation).splits)
    splits["test"] = (splits["validation"][0] + 0.1, splits["validation"][1])
    return ArrayData(splits, ("a", "b", "c"))


def make(folder: Path, *steps: str, **changes: Any) -> Job:
    standard = Job(
        model=candidate(small_net()),
        data=data(),
        dataset="d" * 64,
        recipe=parse_recipe(f"steps: [{', '.join(steps)}]", "r"),
        folder=folder,
        runtime=OnnxRuntime(),
        target=Target(host="here"),
        device=torch.device("cpu"),
        seed=0,
    )
    return dataclasses.replace(standard, **changes)


@pytest.fixture(scope="module", autouse=True)
def no_latency(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    alone = {name: measure for name, measure in MEASURES.items() if not measure.together}
    assert len(alone) < len(MEASURES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "MEASURES", MappingProxyType(alone))
        patch.setattr(turns, "LOCK_FOLDER", str(tmp_path_factory.mktemp("turns")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Pruned and fine-tuned, in a folder that nobody changes."""
    return run(make(tmp_path_factory.mktemp("finished"), PRUNE, TUNE))


@pytest.fixture
def folder(finished: Outcome, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(finished.stages[0].file.parents[1], tmp_path / "stages")


def cached(outcome: Outcome) -> list[bool]:
    return [stage.cached for stage in outcome.stages]


def accuracy(stage: Stage, split: str = "test") -> float | None:
    return next(m.value for m in stage.measurements if m.name == "accuracy" and m.split == split)


def logits(stage: Stage) -> np.ndarray:
    inputs = data().splits["validation"][0].numpy()
    return np.asarray(ort.InferenceSession(stage.file).run(None, {"input": inputs})[0])


def share_right(stage: Stage, split: Split) -> float:
    inputs, labels = data().splits[split]
    (got,) = ort.InferenceSession(stage.file).run(None, {"input": inputs.numpy()})
    return float((np.asarray(got).argmax(1) == labels.numpy()).mean())


def test_every_step_makes_a_measured_stage(finished: Outcome) -> None:
    assert [(s.index, s.method) for s in finished.stages] == [
        (0, None),
        (1, "structured_pruning"),
        (2, "fine_tuning"),
    ]
    assert finished.stages[2].settings["epochs"] == 2
    for stage in finished.stages:
        assert stage.parity is not None
        assert stage.parity.samples == 48
        for split in SPLITS:
            assert accuracy(stage, split) == share_right(stage, split)
    parameters = [next(m.value for m in s.measurements if m.name == "parameters") for s in finished.stages]
    assert parameters[0] == sum(p.numel() for p in small_net().parameters())
    assert parameters[1] == parameters[2]
    assert (parameters[1] or 0) < (parameters[0] or 0)
    assert finished.archive == finished.stages[2].file.with_name("model.pt2")


def test_the_notes_of_a_stage_are_its_own(folder: Path) -> None:
    """The same step twice is two stages."""
    outcome = run(make(folder, PRUNE, TUNE, TUNE))
    assert cached(outcome) == [True, True, True, False]
    assert [stage.index for stage in outcome.stages] == [0, 1, 2, 3]
    assert [len(stage.notes) for stage in outcome.stages] == [0, 1, 1, 1]


def test_zeros_of_a_kept_stage_outlive_the_training_after_it(folder: Path) -> None:
    """The archive alone does not say whether its zeros are there by chance."""
    zeros = "{method: unstructured_pruning, amount: 0.6}"
    run(make(folder, zeros))
    tuned = run(make(folder, zeros, TUNE, TUNE))
    assert cached(tuned) == [True, True, False, False]
    before, after = (_weights(tuned.stages[index]) for index in (1, 3))
    assert not torch.equal(before, after)
    assert torch.equal(before == 0, after == 0)
    assert int((after == 0).sum()) == round(0.6 * len(after))
    assert [stage.sparse for stage in tuned.stages] == [False, True, True, True]


def _weights(stage: Stage) -> torch.Tensor:
    """All weights of convolutions and linear layers in one row."""
    assert stage.archive is not None
    graph = open_model(stage.archive, candidate(None).spec).graph
    assert graph is not None
    return torch.cat([weight.detach().flatten() for weight in layer_weights(graph).values()])


def test_finished_comes_once_per_stage_with_the_work_before(tmp_path: Path) -> None:
    events: list[Event] = []
    outcome = run(make(tmp_path, TUNE, tell=events.append))
    assert tuple(event.finished for event in events if event.finished) == outcome.stages
    order = [event.stage for event in events]
    assert order == sorted(order)
    assert [e.progress.values["epoch"] for e in events if e.progress.values] == [0, 1, 2]


def test_a_second_run_does_nothing_again(
    folder: Path, finished: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Candidate:
        raise AssertionError("done again")

    for method in (FineTuning, StructuredPruning):
        monkeypatch.setattr(method, "apply", fail)
    monkeypatch.setattr(MEASURES["accuracy"], "take", fail)
    second = run(make(folder, PRUNE, TUNE))
    assert (cached(finished), cached(second)) == ([False] * 3, [True] * 3)
    for one, other in zip(finished.stages, second.stages, strict=True):
        assert dataclasses.replace(one, cached=True, file=other.file) == other


def test_the_same_beginning_is_used_again_and_goes_on_to_the_same_end(
    folder: Path, finished: Outcome
) -> None:
    shutil.rmtree(folder / finished.stages[2].key)
    longer = run(make(folder, PRUNE, TUNE))
    assert cached(longer) == [True, True, False]
    assert longer.stages[2].key == finished.stages[2].key
    np.testing.assert_array_equal(logits(longer.stages[2]), logits(finished.stages[2]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [True, True]),
        ({"seed": 1}, [False, False]),
        ({"dataset": "e" * 64}, [False, False]),
        ({"recipe": parse_recipe(f"steps: [{PRUNE.replace('0.3', '0.2')}]", "r")}, [True, False]),
        ({"recipe": parse_recipe(f"name: other\nsteps: [{PRUNE}]", "r")}, [True, True]),
        ({"target": Target(host="here", threads=2)}, [True, True]),
    ],
)
def test_what_decides_whether_a_stage_is_used_again(
    folder: Path, change: dict[str, Any], expected: list[bool]
) -> None:
    assert cached(run(make(folder, PRUNE, **change))) == expected


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("name", "renamed.pt", True),
        ("sha256", "1" * 64, False),
        ("architecture", "other", False),
        ("preprocessing", candidate(None).spec.preprocessing.model_copy(update={"mean": (0.5,)}), False),
    ],
)
def test_what_of_a_model_decides(folder: Path, field: str, value: object, same: bool) -> None:
    model = candidate(small_net())
    other = dataclasses.replace(model, spec=model.spec.model_copy(update={field: value}))
    assert cached(run(make(folder, model=other))) == [same]


def test_other_code_gives_other_keys(
    tmp_path: Path, finished: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, sha256 = tmp_path / "workers", stages.code_sha256.__wrapped__
    shutil.copytree(Path(workers.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(workers, "__file__", str(copied / "__init__.py"))
    same = sha256()
    assert same == sha256()
    method = copied / "methods" / "fine_tuning.py"
    method.write_text(method.read_text() + "\n")
    changed = sha256()
    method.rename(copied / "methods" / "renamed.py")
    assert len({same, changed, sha256()}) == 3
    monkeypatch.setattr(stages, "code_sha256", lambda: changed)
    keys = list(pipeline._keys(make(tmp_path, PRUNE, TUNE)))
    assert not {stage.key for stage in finished.stages} & set(keys)


def test_another_target_is_another_stage_only_from_a_step_that_chooses_by_time_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["fine_tuning"], "depends_on_target", property(lambda _: True))
    here = list(pipeline._keys(make(tmp_path, PRUNE, TUNE, PRUNE)))
    there = list(pipeline._keys(make(tmp_path, PRUNE, TUNE, PRUNE, target=Target(host="there"))))
    assert [a == b for a, b in zip(here, there, strict=True)] == [True, True, False, False]


def damage(name: str, content: bytes | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return change


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        damage("stage.json", None),
        damage("stage.json", b""),
        damage("stage.json", b'{"index": 1,'),
        damage("stage.json", b"[]"),
        damage("stage.json", b'{"files": {}}'),
        damage("stage.json", b"\xff\xfe"),
        damage("model.onnx", None),
        damage("model.onnx", b"half"),
        damage("model.pt2", None),
        damage("model.pt2", b"half"),
        flip,
    ],
)
def test_a_damaged_stage_is_not_believed(
    folder: Path, finished: Outcome, change: Callable[[Path], None]
) -> None:
    store, key = Store(folder), finished.stages[1].key
    assert store.find(key) is not None
    change(folder / key)
    assert store.find(key) is None


def test_a_damaged_stage_is_done_again(folder: Path, finished: Outcome) -> None:
    flip(folder / finished.stages[1].key)
    again = run(make(folder, PRUNE, TUNE))
    assert cached(again) == [True, False, True]
    np.testing.assert_array_equal(logits(again.stages[1]), logits(finished.stages[1]))
    assert {path.name for path in folder.iterdir()} == {stage.key for stage in finished.stages}


def test_damaged_measurements_are_taken_again(folder: Path, finished: Outcome) -> None:
    (file,) = (folder / finished.stages[0].key).glob("measured-*.json")
    file.write_text('[{"name": ')
    assert run(make(folder)).stages[0].measurements == finished.stages[0].measurements


def test_measurements_are_kept_per_target(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = targets_asked(monkeypatch)
    for threads in (1, 2, 2, 1):
        run(make(folder, target=Target(host="here", threads=threads)))
    assert [target.threads for target in asked] == [2]


def test_an_interrupted_step_goes_on_and_counts_all_its_seconds(folder: Path, finished: Outcome) -> None:
    def stop(event: Event) -> None:
        if event.progress.values.get("epoch") == 1:
            raise KeyboardInterrupt

    shutil.rmtree(folder / finished.stages[2].key)
    with pytest.raises(KeyboardInterrupt):
        run(make(folder, PRUNE, TUNE, tell=stop))
    (scratch,) = folder.glob("*.scratch")
    assert float((scratch / "seconds").read_text()) > 0
    (scratch / "seconds").write_text("1000")
    resumed = run(make(folder, PRUNE, TUNE))
    assert 1000 < resumed.stages[2].seconds < 1100
    np.testing.assert_array_equal(logits(resumed.stages[2]), logits(finished.stages[2]))
    assert {path.suffix for path in folder.iterdir()} == {""}


@pytest.mark.parametrize(
    ("step", "error"),
    [("{method: structured_pruning, round_to: 64}", StepFailed), (PRUNE.replace("0.3", "0.2"), GateFailed)],
)
def test_a_failing_step_leaves_the_stages_before_it_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[Exception]
) -> None:
    before = sorted(folder.rglob("*"))
    if error is GateFailed:
        monkeypatch.setattr("workers.deploy.parity.TOLERANCE", -1.0)
    with pytest.raises(error):
        run(make(folder, step))
    assert sorted(folder.rglob("*")) == before


def test_what_killed_runs_left_goes_after_a_week(folder: Path) -> None:
    for name, days in (("a", 8), ("b", 6)):
        for suffix in ("partial", "scratch"):
            (folder / f"{name}.{suffix}" / "inside").mkdir(parents=True)
        (folder / f"{name}.lock").touch()
        for path in folder.glob(f"{name}.*"):
            os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    run(make(folder))
    assert {path.name for path in folder.glob("*.*")} == {"b.partial", "b.scratch", "b.lock"}


def test_half_a_folder_of_a_killed_run_is_replaced(folder: Path, finished: Outcome) -> None:
    key = finished.stages[0].key
    (folder / key).rename(folder / f"{key}.partial")
    (folder / f"{key}.partial" / "stage.json").unlink()
    assert cached(run(make(folder))) == [False]
    assert not list(folder.glob("*.*"))


def test_one_process_at_a_time_has_a_turn(tmp_path: Path) -> None:
    """Another open file is another holder, in this process too."""
    with Store(tmp_path).turn("key"), pytest.raises(TimeoutError):
        FileLock(tmp_path / "key.lock").acquire(timeout=0)
    assert not list(tmp_path.iterdir())


def test_a_stage_with_exits_is_kept_with_them(tmp_path: Path) -> None:
    """Reopened, it is the model that was trained: its cuts are where the plan says they are."""
    step = "{method: early_exit, exits: [relu_1], epochs: 1, head_epochs: 1, batch_size: 16}"
    job = make(tmp_path, step, model=uploaded())
    baseline, stage = run(job).stages
    assert (baseline.exits, baseline.segments) == (None, ())
    assert stage.exits is not None
    assert stage.exits.cuts == ("relu_1",)
    assert stage.exits.thresholds is not None
    assert {"exits.json", "exit_logits.npz"} <= {file.name for file in stage.file.parent.iterdir()}
    assert [file.name for file in stage.segments] == ["model.segment1.onnx", "model.segment2.onnx"]
    assert stage.parity is not None
    assert stage.archive is not None
    again = run(job).stages[-1]
    assert again.cached
    assert (again.exits, again.notes) == (stage.exits, stage.notes)
    graph = open_model(stage.archive, job.model.spec).graph
    assert graph is not None
    assert [node.name for node in cuts_of(graph)] == ["relu_1"]
    assert pipeline._reopen(job, stage).exits == stage.exits  # what a step after it is given
    images, labels = data().splits["validation"]
    right = [float((logits.argmax(1) == labels).float().mean()) for logits in staged_logits(graph, images)]
    assert any(f"exit 1 {right[0]:.2%}, the end {right[1]:.2%}" in note for note in stage.notes)
    accuracy = next(m for m in stage.measurements if m.name == "accuracy" and m.split == "validation")
    assert accuracy.value is not None
    assert accuracy.value >= right[1] - stage.exits.max_drop / 100 - 1e-9
    session = ort.InferenceSession(stage.file)
    got = [session.run(None, {"input": image[None].numpy()}) for image in images]
    assert np.mean([logits[0].argmax() for logits, _ in got] == labels.numpy()) == accuracy.value
    stage.segments[0].write_bytes(b"damaged")
    assert job.store.find(stage.key) is None


@pytest.mark.parametrize("before", [(), (TUNE,)])
def test_exits_after_unknown_nodes_are_refused_before_anything_is_done(
    before: tuple[str, ...], tmp_path: Path
) -> None:
    """Fails when only the step itself looks, after hours of training; what changes the nodes comes first."""
    step = "{method: early_exit, exits: [relu_1, nowhere]}"
    with pytest.raises(StepFailed, match=r"'nowhere' is no place .* Choose among: .*relu_1"):
        run(make(tmp_path, *before, step, model=uploaded()))
    assert list(tmp_path.iterdir()) == []
    job = make(tmp_path, PRUNE, step, model=uploaded())
    pipeline.check(job.model, job.data.classes, job.recipe, {})


def test_an_uploaded_onnx_is_measured_as_it_is(finished: Outcome, tmp_path: Path) -> None:
    upload = Candidate(candidate(None).spec, onnx=finished.stages[0].file)
    outcome = run(make(tmp_path, model=upload))
    assert outcome.archive is None
    assert outcome.stages[0].parity is None
    numbers = {m.name: m.value for m in outcome.stages[0].measurements}
    assert numbers["macs"] == 64 * 8 * 9 * (1 + 8) + 128 * 3
    assert numbers["parameters"] == pytest.approx(sum(p.numel() for p in small_net().parameters()), abs=32)
    assert accuracy(outcome.stages[0]) == accuracy(finished.stages[0])
    assert cached(run(make(tmp_path, model=upload))) == [True]


def test_what_cannot_work_is_refused_before_any_work(tmp_path: Path) -> None:
    upload = Candidate(candidate(None).spec, onnx=tmp_path / "none.onnx")
    with pytest.raises(StepFailed, match=r"step 1 \(fine_tuning\).*no graph"):
        run(make(tmp_path / "stages", TUNE, model=upload))
    with pytest.raises(DatasetRefused, match="3 classes apart, the dataset has 2"):
        run(make(tmp_path / "stages", data=ArrayData(data().splits, ("a", "b"))))
    assert not list(tmp_path.iterdir())


def test_one_validation_sample_is_enough(tmp_path: Path) -> None:
    outcome = run(make(tmp_path, data=data(validation=1)))
    assert outcome.stages[0].parity is not None
    assert outcome.stages[0].parity.samples == 1
    assert outcome.warnings == ()


def test_warns_when_the_model_was_trained_on_the_validation_samples(tmp_path: Path) -> None:
    splits = dict(data(validation=300).splits)
    with torch.no_grad():
        answers = small_net()(splits["validation"][0]).argmax(1)
    splits["validation"] = (splits["validation"][0], answers)
    splits["test"] = (splits["validation"][0], (answers + 1) % 3)
    (warning,) = run(make(tmp_path, data=ArrayData(splits, ("a", "b", "c")))).warnings
    assert "100.0% of the validation samples but only on 0.0%" in warning


def test_what_is_kept_names_no_path(finished: Outcome) -> None:
    for stage in finished.stages:
        text = (stage.file.parent / "stage.json").read_text()
        assert str(stage.file.parent) not in text
        assert set(json.loads(text)["files"]) == {"model.onnx", "model.pt2"}


def test_a_teacher_is_part_of_what_a_stage_depends_on(tmp_path: Path) -> None:
    """Another teacher is another stage; its name is not, and the stages before stay."""
    teacher = replace_spec(candidate(small_net()), sha256="1" * 64)
    distil = "{method: distillation, epochs: 1, batch_size: 16, teacher: other, teacher_model: big}"
    job = make(tmp_path, TUNE, distil, others={"big": teacher})
    first = run(job)
    assert "Teacher: big" in first.stages[2].notes[0]
    renamed = run(dataclasses.replace(job, others={"big": replace_spec(teacher, name="x")}))
    assert cached(renamed) == [True, True, True]
    other = run(dataclasses.replace(job, others={"big": replace_spec(teacher, sha256="2" * 64)}))
    assert cached(other) == [True, True, False]


def replace_spec(model: Candidate, **changes: Any) -> Candidate:
    return dataclasses.replace(model, spec=model.spec.model_copy(update=changes))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (None, "'big', which is not there"),
        (candidate(None), "'big' is an ONNX file"),
        (replace_spec(candidate(small_net()), classes=4), "classes 4"),
        (
            replace_spec(
                candidate(small_net()),
                preprocessing=ImagePreprocessing(channels=1, height=9, width=8, mean=(0.0,), std=(1.0,)),
            ),
            "height 9",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_done(
    tmp_path: Path, other: Candidate | None, what: str
) -> None:
    job = make(tmp_path, TUNE, "{method: distillation, teacher: other, teacher_model: big}")
    with pytest.raises(StepFailed, match=what) as refusal:
        run(dataclasses.replace(job, others={} if other is None else {"big": other}))
    assert refusal.value.where == "step 2 (distillation)"
    assert not list(tmp_path.iterdir())
