"""The peers of early exits: BranchyNet's recipe, and the package `earlyon` as its documentation uses it."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.exits import FIRST, SECOND, STEM, Workshop
from tests.benchmarks.fashion import ARCHITECTURE, PREPROCESSING, Fashion
from workers.base import Candidate, ExitPlan, LabelledData, Session, Split
from workers.exits.heads import heads_for
from workers.exits.staging import add_exits
from workers.graph.resnets import RESNETS
from workers.graph.shapes import values
from workers.training.loop import train

#: The same places by the names of the network's own modules, which earlyon asks for.
LAYERS = {STEM: "relu", FIRST: "layer1", SECOND: "layer2"}
BATCH = 128


def branchynet(
    cuts: Sequence[str], weights: Sequence[float], heads: Literal["mean", "ours"], shop: Workshop
) -> Candidate:
    """Teerapittayanon et al. 2016 (arXiv:1709.01686), section III-B: Σ w_n CE(y, ŷ_n), all together."""
    graph = shop.task.model.graph
    assert graph is not None
    shapes = values(graph, PREPROCESSING.shape)
    nodes = {node.name: node for node in graph.graph.nodes}
    torch.manual_seed(shop.seed)
    made = heads_for(graph, cuts, shop.task.model.spec, "auto", shop.seed)
    if heads == "mean":
        made = {
            cut: nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shapes[nodes[cut]].shape[1], 10)
            )
            for cut in cuts
        }
    staged = add_exits(graph, made)

    def loss(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        parts = [w * F.cross_entropy(own, labels) for w, own in zip(weights, logits.unbind(1), strict=True)]
        return torch.stack(parts).sum()

    def mean_accuracy(point: Mapping[str, float]) -> float:
        return point["accuracy"] + sum(value for name, value in point.items() if name.startswith("exit_"))

    staged.requires_grad_(True)
    train(staged, shop.context, settings=shop.settings, loss=loss, rank=mean_accuracy)
    return Candidate(shop.task.model.spec, staged, exits=ExitPlan(cuts=tuple(cuts), score="entropy"))


def earlyon_two_stage(cuts: Sequence[str], shop: Workshop) -> Candidate:
    """Its default: heads on the frozen network."""
    from earlyon.training import stage2_train_exits

    wrapper = earlyon_wrapper(shop.task, cuts)
    stage2_train_exits(
        wrapper,
        Loader(shop.task.data, "train", shop.settings.augmentation, shop.seed),
        epochs=shop.epochs,
        device=str(shop.device),
    )
    return _exported(wrapper, cuts, shop)


def earlyon_joint(cuts: Sequence[str], shop: Workshop) -> Candidate:
    from earlyon.training import joint_train_backbone_and_exits

    wrapper = earlyon_wrapper(shop.task, cuts)
    loader = Loader(shop.task.data, "train", shop.settings.augmentation, shop.seed)
    joint_train_backbone_and_exits(wrapper, loader, epochs=shop.epochs, device=str(shop.device))
    return _exported(wrapper, cuts, shop)


def earlyon_wrapper(task: Fashion, cuts: Sequence[str]) -> Any:
    """The network with its exits after the same stages as ours, before their training."""
    from earlyon.models import custom_ee

    backbone = RESNETS[ARCHITECTURE](num_classes=10, in_channels=1)
    assert task.model.graph is not None
    backbone.load_state_dict(task.model.graph.state_dict())
    return custom_ee(
        backbone, [LAYERS[cut] for cut in cuts], num_classes=10, input_shape=(1, *PREPROCESSING.shape)
    )


class Loader:
    """Batches as torch's DataLoader gives them; where there is a seed, shuffled anew each time."""

    def __init__(
        self, data: LabelledData, split: Split, augment: str = "none", seed: int | None = None
    ) -> None:
        self.data, self.split, self.augment = data, split, augment
        self.shuffles = itertools.repeat(None) if seed is None else itertools.count(1000 * seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        shuffle, augment = next(self.shuffles), self.augment
        return self.data.batches(self.split, BATCH, shuffle=shuffle, augment=augment)


class EarlyonSession(Session):
    """Its own executor, one sample at a time, in eager torch."""

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper

    def run(self, inputs: np.ndarray) -> np.ndarray:
        result = self.wrapper(torch.from_numpy(inputs), mode="inference")
        return np.asarray(result.prediction)


def earlyon_calibrated(folder: Path, task: Fashion, cuts: Sequence[str], max_drop: float) -> Any:
    """A trained wrapper with temperatures and thresholds by its own search. max_drop: points lost."""
    from earlyon.core.thresholds import calibrate_thresholds

    wrapper = earlyon_wrapper(task, cuts)
    wrapper.load_state_dict(torch.load(folder / "wrapper.pt", weights_only=True))
    calibrate_thresholds(
        wrapper.eval(),
        Loader(task.data, "validation"),
        target_accuracy_drop=max_drop / 100,
        fit_temperature=True,
        temperature_loader=Loader(task.data, "calibration"),
    )
    return wrapper.eval()


def earlyon_policy(wrapper: Any, task: Fashion, split: Split) -> tuple[float, tuple[float, ...]]:
    """Accuracy, and the share of the samples that leaves at each exit and at the end."""
    from earlyon.core.thresholds import collect_head_logits, simulate_policy

    found = simulate_policy(collect_head_logits(wrapper, Loader(task.data, split), "cpu"), wrapper)
    names = [*(f"exit_{index}" for index in range(len(wrapper.config.exit_points))), "final"]
    return found.accuracy, tuple(found.exit_distribution.get(name, 0.0) for name in names)


def _exported(wrapper: Any, cuts: Sequence[str], shop: Workshop) -> Candidate:
    """Its weights, kept for its own executor; and in our graph, for ONNX files that it cannot write."""
    wrapper = wrapper.cpu().eval()
    torch.save(wrapper.state_dict(), shop.folder / "wrapper.pt")
    graph = shop.task.model.graph
    assert graph is not None
    state = {**graph.state_dict(), **wrapper.backbone.state_dict()}
    heads = {
        cut: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *wrapper.exit_heads[f"e{index}"].classifier)
        for index, cut in enumerate(cuts)
    }
    staged = add_exits(graph, heads)
    staged.load_state_dict(state, strict=False)
    inputs, _ = next(iter(shop.task.data.batches("validation", 8)))
    with torch.no_grad():
        theirs = torch.stack(wrapper(inputs, mode="training"), dim=1)
        torch.testing.assert_close(staged(inputs), theirs, rtol=1e-3, atol=1e-4)
    return Candidate(shop.task.model.spec, staged, exits=ExitPlan(cuts=tuple(cuts)))
