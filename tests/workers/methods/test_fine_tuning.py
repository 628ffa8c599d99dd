from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.support.arrays import candidate, context, easy_data, small_net
from workers.errors import StepFailed
from workers.methods.fine_tuning import FineTuning


def test_gives_a_better_candidate_and_leaves_the_first_alone(tmp_path: Path) -> None:
    model, data = candidate(small_net()), easy_data()
    tuned = FineTuning(epochs=4, batch_size=16).apply(model, context(tmp_path, data=data))
    images, labels = data.splits["validation"]
    assert tuned.graph is not None
    assert model.graph is not None
    assert ((tuned.graph(images).argmax(1) == labels).float().mean()) > 0.9
    untouched = small_net().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in model.graph.state_dict().items())
    assert all(not torch.equal(p, untouched[name]) for name, p in tuned.graph.named_parameters())
    assert tuned.spec == model.spec
    assert tuned.notes[0].startswith("Fine-tuning kept epoch")


def test_says_so_when_the_starting_weights_were_best(tmp_path: Path) -> None:
    model, run = candidate(small_net()), context(tmp_path)
    tuned = FineTuning(epochs=6, batch_size=8, learning_rate=0.02).apply(model, run)
    worse = FineTuning(epochs=1, batch_size=2, learning_rate=1.0, label_smoothing=0.5).apply(tuned, run)
    assert tuned.graph is not None
    assert worse.graph is not None
    before = tuned.graph.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in worse.graph.state_dict().items())
    assert worse.notes[:-1] == tuned.notes
    assert "kept the starting weights" in worse.notes[-1]


def test_divergence_leaves_the_candidate_alone(tmp_path: Path) -> None:
    model, data = candidate(small_net()), easy_data()
    data.splits["train"][0][3] = float("nan")
    with pytest.raises(StepFailed, match="epoch 1, batch"):
        FineTuning(epochs=1, batch_size=16).apply(model, context(tmp_path, data=data))
    assert model.graph is not None
    untouched = small_net().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in model.graph.state_dict().items())


def test_trains_what_was_saved_frozen(tmp_path: Path) -> None:
    """Networks are often exported with requires_grad off; that says nothing about what to do now."""
    graph = small_net().requires_grad_(False)
    tuned = FineTuning(epochs=1, batch_size=16).apply(candidate(graph), context(tmp_path))
    assert tuned.graph is not None
    assert not torch.equal(tuned.graph.get_parameter("0.weight"), graph.get_parameter("0.weight"))


def test_label_smoothing_reaches_the_loss(tmp_path: Path) -> None:
    """Smoothed labels pull the answers away from certainty."""
    certainty = []
    for smoothing in (0.0, 0.5):
        (tmp_path / str(smoothing)).mkdir()
        method = FineTuning(epochs=6, batch_size=16, label_smoothing=smoothing)
        tuned = method.apply(candidate(small_net()), context(tmp_path / str(smoothing)))
        assert tuned.graph is not None
        certainty.append(tuned.graph(easy_data().splits["train"][0]).softmax(1).amax(1).mean().item())
    assert certainty[1] < certainty[0] - 0.1


def test_refuses_a_model_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ONNX"):
        FineTuning().apply(candidate(None), context(tmp_path))


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"batch_size": 1},
        {"optimizer": "adam"},
        {"weight_decay": -1e-4},
        {"label_smoothing": 1.0},
        {"augmentation": "flip"},
        {"momentum": 0.9},
    ],
)
def test_refuses_settings_out_of_bounds(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FineTuning(**setting)


def test_every_setting_has_a_default_and_a_description() -> None:
    for name, field in FineTuning.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name
