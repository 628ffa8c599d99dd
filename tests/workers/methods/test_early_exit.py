"""What the exits learn, what the model keeps, and that a kill changes nothing."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.fx import GraphModule, Node

from tests.support.arrays import ArrayData, candidate, context, easy_data, small_net
from workers.base import Candidate, ExitPlan, Progress
from workers.errors import StepFailed
from workers.exits import placing
from workers.exits.losses import exit_loss
from workers.exits.placing import Spot
from workers.exits.staging import staged_logits
from workers.methods import early_exit
from workers.methods.early_exit import MAX_LOSS_OF_THE_END, EarlyExit
from workers.training import loop
from workers.training.losses import Loss, cross_entropy
from workers.training.settings import TrainingSettings

#: After the first and the second convolution of `small_net`.
CUTS = ("_2", "_3")
QUICK: dict[str, Any] = {"exits": CUTS, "epochs": 3, "head_epochs": 3, "batch_size": 16}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A network that has something to lose."""
    net, settings = small_net(), TrainingSettings(epochs=8, batch_size=16)
    loop.train(net, context(tmp_path_factory.mktemp("taught")), settings=settings, loss=cross_entropy())
    return candidate(net)


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting the model to time it takes longer than training it; `exits/test_placing.py` looks at that."""

    def made(_: GraphModule, points: Sequence[Node], *__: object) -> list[Spot]:
        return [Spot(name=point.name, share=0.5, head=0.01) for point in points]

    monkeypatch.setattr(placing, "timed_places", made)


def accuracies(graph: GraphModule | None) -> list[float]:
    """On validation, of every exit and of the end."""
    assert graph is not None
    images, labels = easy_data().splits["validation"]
    return [float((logits.argmax(1) == labels).float().mean()) for logits in staged_logits(graph, images)]


def body(graph: GraphModule | None) -> dict[str, Tensor]:
    """Everything but the heads."""
    assert graph is not None
    return {k: v for k, v in graph.state_dict().items() if not k.startswith("early_exit")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_exits_learn_and_the_end_stays_as_good(taught: Candidate, tmp_path: Path) -> None:
    made = EarlyExit(**QUICK, score="margin").apply(taught, context(tmp_path))
    assert made.exits == ExitPlan(cuts=CUTS, score="margin")
    before = accuracies_of_end(taught)
    first, second, end = accuracies(made.graph)
    assert min(first, second) > 0.85
    assert end >= before - MAX_LOSS_OF_THE_END
    assert not same(body(made.graph), body(taught.graph))
    assert made.notes[0].startswith("Exits after _2 (")
    assert made.notes[-1] == (
        f"Validation accuracy: exit 1 {first:.2%}, exit 2 {second:.2%}, the end {end:.2%} "
        f"({before:.2%} before it had exits)."
    )


def accuracies_of_end(model: Candidate) -> float:
    assert model.graph is not None
    images, labels = easy_data().splits["validation"]
    return float((model.graph(images).argmax(1) == labels).float().mean())


@pytest.mark.parametrize(("asked", "shown"), [({}, {"none"}), ({"augmentation": "auto"}, {"none", "auto"})])
def test_pictures_are_changed_only_where_that_is_asked(
    taught: Candidate, tmp_path: Path, asked: dict[str, str], shown: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation never is; an augmented head is less sure (benchmarks/results/exits.md)."""
    seen, give = set[str](), ArrayData.batches

    def batches(self: ArrayData, *args: Any, augment: str = "none", **more: Any) -> Any:
        seen.add(augment)
        return give(self, *args, augment=augment, **more)

    monkeypatch.setattr(ArrayData, "batches", batches)
    EarlyExit(**{**QUICK, "epochs": 1, "head_epochs": 1, **asked}).apply(taught, context(tmp_path))
    assert seen == shown


def test_heads_alone_leave_the_model_as_it_was(taught: Candidate, tmp_path: Path) -> None:
    made = EarlyExit(**{**QUICK, "head_epochs": 12}, training="heads").apply(taught, context(tmp_path))
    assert same(body(made.graph), body(taught.graph))
    assert min(accuracies(made.graph)) > 0.85


@pytest.mark.parametrize("training", ["two_phase", "joint"])
def test_training_together_that_costs_the_end_too_much_is_taken_back(
    taught: Candidate, tmp_path: Path, training: str
) -> None:
    """With half of a class under another's name the end gets worse, however much the exits learn."""
    data = easy_data()
    images, labels = data.splits["train"]
    data.splits["train"] = (
        images,
        torch.where((labels == 2) & (torch.arange(len(labels)) % 2 == 0), 1, labels),
    )
    seen: list[Progress] = []
    method = EarlyExit(**QUICK, training=training, distillation="none", learning_rate=0.1)
    made = method.apply(taught, context(tmp_path, data=data, tell=seen.append))
    points = [progress.values for progress in seen if "epoch" in progress.values]
    assert max(point["exit_1"] for point in points[1:]) > points[0]["exit_1"] or training == "two_phase"
    assert same(body(made.graph), body(taught.graph))
    assert any("The model stays as it was" in note for note in made.notes)


@pytest.mark.parametrize(("teacher", "right"), [("original", True), ("none", False)])
def test_every_exit_hears_the_original(taught: Candidate, tmp_path: Path, teacher: str, right: bool) -> None:
    """The labels are wrong, all of them; the original knows better."""
    data = easy_data()
    images, labels = data.splits["train"]
    data.splits["train"] = images, (labels + 1) % 3
    run = context(tmp_path, data=data)
    object.__setattr__(run, "original", taught)
    method = EarlyExit(**QUICK, training="heads", distillation=teacher, distillation_weight=1.0)
    exits = accuracies(method.apply(taught, run).graph)[:-1]
    assert all((share > 0.7) == right for share in exits)


@pytest.mark.parametrize("equilibrium", [True, False])
def test_zeros_of_a_pruning_stay_zeros(taught: Candidate, tmp_path: Path, equilibrium: bool) -> None:
    assert taught.graph is not None
    pruned = Candidate(taught.spec, small_net(), sparse=True)
    assert pruned.graph is not None
    pruned.graph.load_state_dict(taught.graph.state_dict())
    weight = pruned.graph.get_parameter("3.weight")
    with torch.no_grad():
        weight[weight.abs() < weight.abs().median()] = 0
    made = EarlyExit(**QUICK, training="joint", equilibrium=equilibrium).apply(pruned, context(tmp_path))
    assert made.graph is not None
    after = made.graph.get_parameter("3.weight")
    assert not torch.equal(after, weight)
    assert torch.equal(after == 0, weight == 0)


def test_stopped_at_any_report_changes_no_bit(
    taught: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", 0)
    method = EarlyExit(exits=("_2",), epochs=2, head_epochs=2, batch_size=32)

    told: list[str] = []

    def applied(name: str, stop: int | None = None) -> Candidate:
        scratch, reports = tmp_path / name, count()
        scratch.mkdir(exist_ok=True)
        told.clear()

        def tell(progress: Progress, reports: Iterator[int] = reports) -> None:
            told.append(progress.text)
            if next(reports) == stop:
                raise KeyboardInterrupt

        return method.apply(taught, context(scratch, tell=tell))

    expected = applied("undisturbed").graph
    assert expected is not None
    for stop in (4, 9, 12):  # in the heads' second epoch, between the phases, in the last epochs
        with pytest.raises(KeyboardInterrupt):
            applied(f"{stop}", stop)
        resumed = applied(f"{stop}").graph
        assert resumed is not None
        assert same(resumed.state_dict(), expected.state_dict()), f"stopped at report {stop}"
    assert not any(text.startswith("Heads") and "batch" in text for text in told), "heads trained again"


def test_progress_rises_and_the_second_phase_goes_on_with_the_curves(
    taught: Candidate, tmp_path: Path
) -> None:
    told: list[Progress] = []
    EarlyExit(**QUICK).apply(taught, context(tmp_path, tell=told.append))
    shares = [progress.share for progress in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    points = [progress.values for progress in told if "epoch" in progress.values]
    assert [point["epoch"] for point in points] == [0, 1, 2, 3, 4, 5, 6]
    assert all("loss" in point for point in points[1:])


def test_the_weights_that_were_asked_for_reach_the_loss(
    taught: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def heard(*names: Any, **settings: Any) -> Loss:
        asked.append(settings["weighting"])
        return exit_loss(*names, **settings)

    monkeypatch.setattr(early_exit, "exit_loss", heard)
    for number, weights in enumerate(("rising", "equal")):
        (tmp_path / str(number)).mkdir()
        settings = {**QUICK, "epochs": 1, "training": "joint", "exit_weights": weights}
        EarlyExit(**settings).apply(taught, context(tmp_path / str(number)))
    assert asked == ["rising", "equal"]


def test_refuses_what_has_no_graph_or_has_exits_already(taught: Candidate, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ONNX"):
        EarlyExit().apply(candidate(None), context(tmp_path))
    with pytest.raises(StepFailed, match="has exits already"):
        EarlyExit().apply(
            Candidate(taught.spec, taught.graph, exits=ExitPlan(cuts=("a",))), context(tmp_path)
        )


@pytest.mark.parametrize(
    "setting",
    [
        {"exits": 0}, {"exits": 5}, {"exits": ()}, {"exits": ["a"] * 5}, {"exits": 1.5}, {"max_drop": -1},
        {"guarantee": 1.0}, {"guarantee": 0.1}, {"guarantee": 0.49}, {"head": "big"}, {"training": "mixed"},
        {"distillation_weight": 2}, {"exits": ["a", "b", "a"]}, {"score": "patience", "exits": 1},
        {"score": "patience", "exits": ["a"]},
    ],
)  # fmt: skip
def test_refuses_settings_out_of_bounds(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EarlyExit(**setting)


def test_a_risk_in_place_of_a_confidence_is_told_apart() -> None:
    assert EarlyExit(guarantee=0.5).guarantee == 0.5
    with pytest.raises(ValidationError, match="or more"):
        EarlyExit(guarantee=0.1)
