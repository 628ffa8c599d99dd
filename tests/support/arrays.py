"""Labelled data from arrays, and a task so easy that a small net learns it within seconds."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from workers.base import Candidate, Context, ImagePreprocessing, ModelSpec, Progress, Split, Target
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.runtimes.onnxruntime import OnnxRuntime

# Test processes with a thread per core each wait for one another: the same tests took 100 times longer.
torch.set_num_threads(1)


@dataclass(frozen=True)
class ArrayData:
    """The protocol of LabelledData over (N, C, H, W) float32 and (N,) int64 per split."""

    splits: dict[Split, tuple[Tensor, Tensor]]
    classes: tuple[str, ...]

    def labels(self, split: Split) -> np.ndarray:
        return self.splits[split][1].numpy()

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:
        count = len(self.splits[split][1])
        if shuffle is None:
            return np.arange(count)
        return torch.randperm(count, generator=torch.Generator().manual_seed(shuffle)).numpy()

    def batches(
        self, split: Split, batch_size: int, *, shuffle: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.splits[split]
        order, generator = torch.arange(len(labels)), torch.Generator()
        if shuffle is not None:
            order = torch.randperm(len(labels), generator=generator.manual_seed(shuffle))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = images[rows]
            if augment != "none" and shuffle is not None:
                batch = batch + 0.1 * torch.randn(batch.shape, generator=generator)
            yield batch, labels[rows]


def easy_data(train: int = 64, validation: int = 48, noise: float = 1.0) -> ArrayData:
    """Three classes of 1x8x8 pictures: a pattern each, under noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(3, 1, 8, 8, generator=generator)

    def split(samples: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(samples) % 3
        return patterns[labels] + noise * torch.randn(samples, 1, 8, 8, generator=generator), labels

    splits: dict[Split, tuple[Tensor, Tensor]] = {"train": split(train), "validation": split(validation)}
    return ArrayData({**splits, "calibration": split(validation)}, ("a", "b", "c"))


def small_net() -> fx.GraphModule:
    """Convolutions, BatchNorm, Dropout, LayerNorm and a classifier; the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.LayerNorm(128),
            nn.Linear(128, 3),
        )
    return fx.symbolic_trace(layers).eval()


def candidate(graph: fx.GraphModule | None) -> Candidate:
    preprocessing = ImagePreprocessing(channels=1, height=8, width=8, mean=(0.0,), std=(1.0,))
    spec = ModelSpec(name="net", sha256="0" * 64, architecture=None, classes=3, preprocessing=preprocessing)
    return Candidate(spec, graph)


@cache
def uploaded() -> Candidate:
    """`small_net` as an import hands it out: its nodes have the names that they get in an archive."""
    model = candidate(small_net())
    assert model.graph is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt2"
        write_archive(trace(model.graph, model.spec.preprocessing), file)
        return open_model(file, model.spec)


def context(
    scratch: Path,
    *,
    data: ArrayData | None = None,
    seed: int = 0,
    tell: Callable[[Progress], None] | None = None,
) -> Context:
    return Context(
        data=data or easy_data(),
        original=candidate(small_net()),
        runtime=OnnxRuntime(),
        target=Target(host="here"),
        device=torch.device("cpu"),
        seed=seed,
        scratch=scratch,
        tell=tell or (lambda _: None),
    )
