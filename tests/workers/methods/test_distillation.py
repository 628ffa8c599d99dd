from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.support.arrays import ArrayData, candidate, context, easy_data, small_net
from workers.base import Candidate, Context, ImagePreprocessing, Progress
from workers.errors import StepFailed
from workers.graph.students import known
from workers.methods.distillation import Distillation
from workers.methods.fine_tuning import FineTuning
from workers.recipe import parse_recipe, settings_of
from workers.training import loop
from workers.training.settings import TrainingSettings

QUICK: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 0.03, "augmentation": "none"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A small net that knows the easy task."""
    run = context(tmp_path_factory.mktemp("teacher"))
    return FineTuning(epochs=6, batch_size=16, learning_rate=0.05).apply(candidate(small_net()), run)


def lies(samples: int = 64) -> ArrayData:
    """Labels of the training split that mean nothing: what a student knows is from the teacher."""
    data = easy_data(train=samples)
    images, labels = data.splits["train"]
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
    return ArrayData({**data.splits, "train": (images, labels[order])}, data.classes)


def accuracy(model: Candidate) -> float:
    images, labels = easy_data().splits["validation"]
    assert model.graph is not None
    return float((model.graph(images).argmax(1) == labels).float().mean())


def same_bits(one: Candidate, other: Candidate) -> bool:
    assert one.graph is not None
    assert other.graph is not None
    a, b = one.graph.state_dict(), other.graph.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run_of(scratch: Path, original: Candidate, **changes: Any) -> Context:
    return replace(context(scratch, data=lies()), original=original, **changes)


@pytest.mark.parametrize("loss", ["hinton", "standardised", "dkd", "dist"])
def test_a_student_learns_from_its_teacher_what_labels_do_not_tell(
    tmp_path: Path, teacher: Candidate, loss: str
) -> None:
    method = Distillation.model_validate(QUICK | {"loss": loss, "weight": 1.0, "temperature": 2.0})
    student = method.apply(candidate(small_net()), run_of(tmp_path, teacher))
    assert accuracy(student) > 0.85
    assert student.spec == candidate(None).spec
    made, course, *more = student.notes
    assert made.startswith("Student: the model as it stood. Teacher: the model as uploaded, ")
    assert f"{accuracy(teacher):.2%} on validation" in made
    assert course.startswith("Distillation kept epoch")
    assert bool(more) == (accuracy(student) >= accuracy(teacher))


def test_weight_0_leaves_the_labels_alone(tmp_path: Path, teacher: Candidate) -> None:
    """Then it is fine-tuning, bit for bit."""
    (tmp_path / "tuned").mkdir()
    plain = FineTuning(**QUICK).apply(candidate(small_net()), run_of(tmp_path / "tuned", teacher))
    student = Distillation(**QUICK, weight=0).apply(candidate(small_net()), run_of(tmp_path, teacher))
    assert same_bits(plain, student)


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        (
            {"student": "narrower", "round_to": 1},
            "a narrower copy with fresh weights and 39% of the parameters",
        ),
        ({"student": "architecture", "architecture": "cifar_resnet8"}, "cifar_resnet8 with fresh weights"),
    ],
)
def test_students_of_other_shapes(
    tmp_path: Path, teacher: Candidate, settings: dict[str, Any], note: str
) -> None:
    method = Distillation(**QUICK, weight=1.0, **settings)
    student = method.apply(teacher, run_of(tmp_path, teacher))
    assert accuracy(student) > 0.75
    assert f"Student: {note}." in student.notes[1]


@pytest.mark.parametrize(("weight", "told"), [(0.6, True), (0.4, False)])
def test_says_when_the_student_is_better_than_its_teacher(
    tmp_path: Path, teacher: Candidate, weight: float, told: bool
) -> None:
    """Of a teacher that knows nothing there is little to learn."""
    run = replace(context(tmp_path), original=candidate(small_net()))
    student = Distillation(**QUICK, weight=weight).apply(teacher, run)
    assert ("at least as accurate as its teacher" in student.notes[-1]) == told


def test_a_shallower_student_starts_from_the_weights_that_stay(tmp_path: Path) -> None:
    resnet = Distillation(
        **QUICK | {"epochs": 1}, student="architecture", architecture="cifar_resnet14", weight=0
    ).apply(candidate(small_net()), context(_made(tmp_path / "one")))
    student = Distillation(**QUICK | {"epochs": 1}, student="shallower", teacher="current", depth=0.5).apply(
        resnet, context(_made(tmp_path / "two"))
    )
    assert any("a copy without 2 of 4 residual branches" in note for note in student.notes)
    assert student.graph is not None
    assert resnet.graph is not None
    convolutions = [
        sum(isinstance(m, torch.nn.Conv2d) for m in graph.modules())
        for graph in (resnet.graph, student.graph)
    ]
    assert convolutions == [15, 11]


@pytest.mark.parametrize(("student", "sparse"), [("shallower", True), ("architecture", False)])
def test_zeros_stay_where_the_weights_do(tmp_path: Path, student: str, sparse: bool) -> None:
    graph = known("cifar_resnet14", candidate(None).spec, seed=0)
    with torch.no_grad():
        for weight in graph.parameters():
            if weight.dim() > 1:
                weight[torch.rand_like(weight) < 0.6] = 0
    pruned = replace(candidate(graph), sparse=True)
    method = Distillation.model_validate(QUICK | {"epochs": 1, "student": student, "teacher": "current"})
    after = method.apply(pruned, context(tmp_path))
    assert after.sparse == sparse
    assert after.graph is not None
    for name, weight in after.graph.named_parameters():
        if weight.dim() > 1 and sparse:
            assert torch.equal(weight == 0, graph.get_parameter(name) == 0), name


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_another_model_teaches_in_its_own_normalisation(tmp_path: Path, teacher: Candidate) -> None:
    """The same net, told to expect pictures as (x - 3) / 2, with a first layer that undoes it."""
    assert teacher.graph is not None
    graph = torch.fx.symbolic_trace(torch.nn.Sequential(_Undo(3.0, 2.0), teacher.graph))
    other_way = ImagePreprocessing(channels=1, height=8, width=8, mean=(3.0,), std=(2.0,))
    other = Candidate(teacher.spec.model_copy(update={"preprocessing": other_way, "name": "big"}), graph)
    method = Distillation(**QUICK, teacher="other", teacher_model="big", weight=1.0)
    assert method.other_model == "big"
    expected = Distillation(**QUICK, weight=1.0).apply(
        candidate(small_net()), run_of(_made(tmp_path / "a"), teacher)
    )
    run = run_of(_made(tmp_path / "b"), candidate(small_net()), others={"big": other})
    student = method.apply(candidate(small_net()), run)
    assert expected.graph is not None
    assert student.graph is not None
    torch.testing.assert_close(student.graph.state_dict(), expected.graph.state_dict(), rtol=1e-3, atol=1e-4)
    assert "Teacher: big, " in student.notes[0]
    with pytest.raises(StepFailed, match=r"big.*is not there"):
        method.apply(candidate(small_net()), context(tmp_path))


class _Undo(torch.nn.Module):
    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.std + self.mean


SELF_MADE = Distillation(
    **QUICK | {"epochs": 2},
    teacher="architecture",
    teacher_architecture="cifar_resnet8",
    teacher_epochs=3,
    weight=0.5,
)


def test_a_teacher_trained_here_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the teacher's second epoch, and again in the student's: the bits of a run left alone."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", 1e9)
    model = candidate(small_net())
    told: list[Progress] = []
    expected = SELF_MADE.apply(model, context(_made(tmp_path / "undisturbed"), tell=told.append))
    scratch = _made(tmp_path / "killed")

    def until(text: str) -> Callable[[Progress], None]:
        def tell(progress: Progress) -> None:
            if progress.text.startswith(text):
                raise KeyboardInterrupt

        return tell

    for text in ("Teacher: Epoch 2 of 3:", "Asking the teacher", "Epoch 1 of 2:"):
        with pytest.raises(KeyboardInterrupt):
            SELF_MADE.apply(model, context(scratch, tell=until(text)))
    resumed = SELF_MADE.apply(model, context(scratch))
    assert same_bits(resumed, expected)
    assert resumed.notes == expected.notes
    assert "Teacher: cifar_resnet8, trained here for up to 3 epochs, " in expected.notes[0]
    shares = [progress.share for progress in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    drawn = [progress.values["epoch"] for progress in told if "epoch" in progress.values]
    assert drawn == [0, 1, 2], "the curves are the student's"


def test_a_teacher_trained_here_has_its_own_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    real = loop._Loop.__init__

    def noted(self: loop._Loop, model: Any, run: Context, settings: TrainingSettings, *rest: Any) -> None:
        rates.append(settings.learning_rate)
        real(self, model, run, settings, *rest)

    monkeypatch.setattr(loop._Loop, "__init__", noted)
    method = SELF_MADE.model_copy(update={"epochs": 1, "teacher_epochs": 1})
    method.apply(candidate(small_net()), context(_made(tmp_path / "default")))
    method = method.model_copy(update={"teacher_learning_rate": 0.2})
    method.apply(candidate(small_net()), context(_made(tmp_path / "given")))
    assert rates == [0.1, QUICK["learning_rate"], 0.2, QUICK["learning_rate"]]


def test_refuses_a_model_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ONNX"):
        Distillation().apply(candidate(None), context(tmp_path))


@pytest.mark.parametrize(
    "setting",
    [
        {"student": "smaller"},
        {"architecture": "resnet_eighteen"},
        {"teacher_architecture": ""},
        {"temperature": 0},
        {"weight": 1.1},
        {"width": 1.0},
        {"depth": 1.0},
        {"loss": "kl"},
        {"teacher_epochs": 0},
        {"teacher_learning_rate": 0},
        {"teacher_model": "x" * 201},
        {"warm_up": 0.6},
        {"mixup": -1},
        {"patience": -1},
        {"schedule": "linear"},
        {"mixed_precision": "on"},
    ],
)
def test_refuses_settings_out_of_bounds(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Distillation(**setting)


def test_the_lesson_comes_before_the_training_in_a_form() -> None:
    assert list(Distillation.settings())[:4] == ["student", "teacher", "loss", "weight"]
    (step,) = parse_recipe("steps: [{method: distillation, student: narrower, epochs: 3}]", "r").steps
    assert settings_of(step)["student"] == "narrower"
