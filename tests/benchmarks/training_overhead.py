"""What our training loop costs over a bare PyTorch loop: the same net, data, optimiser and machine.

    python -m tests.benchmarks.training_overhead

Epochs of both take turns in one process: ``train`` tells of every finished epoch, and while it waits for
that call to return, the bare loops do theirs. An epoch is all that ours does: batches with augmentation,
host turns, clipping, reports, validation, checkpoint. The bare loops leave out turns, clipping, reports and
checkpoint. One has our memory format, which isolates the overhead; the other PyTorch's usual one.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.arrays import ArrayData, context
from workers import turns
from workers.base import Progress
from workers.host import host_facts
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings

RESULTS = Path(__file__).parent / "results" / "training_overhead.md"
BATCH, TRAIN_SAMPLES, VALIDATION_SAMPLES = 128, 2048, 512
FORMATS = {"bare, channels last": torch.channels_last, "bare, contiguous": torch.contiguous_format}


class Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Conv2d(width_in, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.residual(features) + self.shortcut(features))


def small_resnet() -> nn.Module:
    """12.4 MMACs at 32x32."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return nn.Sequential(stem, Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2), head)


def random_data() -> ArrayData:
    def split(samples: int) -> tuple[Tensor, Tensor]:
        return torch.randn(samples, 3, 32, 32), torch.randint(0, 10, (samples,))

    return ArrayData(
        {"train": split(TRAIN_SAMPLES), "validation": split(VALIDATION_SAMPLES)}, tuple("0123456789")
    )


def bare_loop(
    model: nn.Module, data: ArrayData, epochs: int, layout: torch.memory_format
) -> Callable[[], None]:
    """One epoch per call, as a tutorial would write it."""
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * TRAIN_SAMPLES // BATCH)

    def epoch() -> None:
        model.train()
        for images, labels in data.batches("train", BATCH, shuffle=0, augment="crop"):
            optimizer.zero_grad()
            F.cross_entropy(model(images.to(memory_format=layout)), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            for images, labels in data.batches("validation", BATCH):
                (model(images.to(memory_format=layout)).argmax(1) == labels).sum().item()

    return epoch


def seconds_per_epoch(rounds: int) -> dict[str, np.ndarray]:
    """Per loop (rounds, 2): wall and processor seconds of each epoch after the first, which warms up."""
    model, data = small_resnet(), random_data()
    bare = {
        name: bare_loop(copy.deepcopy(model), data, rounds + 1, layout) for name, layout in FORMATS.items()
    }
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in ("ours", *bare)}
    began = clocks()

    def take_turns(progress: Progress) -> None:
        nonlocal began
        if not progress.values:
            return
        seconds["ours"].append(clocks() - began)
        for name in sorted(bare, reverse=len(seconds["ours"]) % 2 == 0):
            began = clocks()
            bare[name]()
            seconds[name].append(clocks() - began)
        began = clocks()

    settings = TrainingSettings(epochs=rounds + 1, batch_size=BATCH, augmentation="crop")
    with tempfile.TemporaryDirectory() as scratch:
        turns.LOCK_FOLDER = scratch  # a neighbour's measurement, for which ours waits, is no overhead
        run = context(Path(scratch), data=data, tell=take_turns)
        train(model, run, settings=settings, loss=cross_entropy())
    # Two reports come before the timed rounds: the start and the warm-up epoch.
    return {name: np.array(values[2:]) for name, values in seconds.items()}


def clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def ratio(ours: np.ndarray, other: np.ndarray) -> str:
    """Ratio of the 10th percentiles and its 95 % bootstrap interval over rounds."""
    rounds = np.random.default_rng(0).integers(len(ours), size=(2000, len(ours)))
    low = [np.quantile(seconds[rounds], 0.1, axis=1) for seconds in (ours, other)]
    start, end = np.quantile(low[0] / low[1], [0.025, 0.975])
    return f"{np.quantile(ours, 0.1) / np.quantile(other, 0.1):.3f} ({start:.3f} to {end:.3f})"


def report(seconds: dict[str, np.ndarray], threads: int) -> str:
    ours, facts = seconds["ours"], host_facts()
    lines = [
        "# Overhead of the training loop",
        "",
        f"`python -m tests.benchmarks.training_overhead --rounds {len(ours)} --threads {threads}`",
        "",
        f"{facts.logical_cores} cores, {facts.instructions}, torch {torch.__version__.split('+')[0]}, "
        f"{threads} thread(s). ResNet of 12.4 MMACs at 32x32, batch {BATCH}, {TRAIN_SAMPLES} training and "
        f"{VALIDATION_SAMPLES} validation samples; epochs interleaved in one process. Seconds per epoch; "
        "ratios are those of the 10th percentiles with 95 % bootstrap intervals. Processor time does not see "
        "busy neighbours; nor does it see waiting for the disk.",
        "",
        "| loop | wall p10 | median | max | ours / this | processor p10 | ours / this |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, values in seconds.items():
        wall, processor = values.T
        figures = [f"{seconds:.3f}" for seconds in (*np.quantile(wall, [0.1, 0.5]), wall.max())]
        cells = [name, *figures, ratio(ours[:, 0], wall)]
        cells += [f"{np.quantile(processor, 0.1):.3f}", ratio(ours[:, 1], processor)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Overhead of the training loop over a bare one.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = report(seconds_per_epoch(arguments.rounds), arguments.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
