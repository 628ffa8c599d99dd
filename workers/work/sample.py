"""The net of the sample: a small ResNet, trained here on the sample digits, so that nothing is downloaded."""

from pathlib import Path

import torch

from workers.assignment import Assignment
from workers.base import Candidate, Context, ImagePreprocessing, ModelSpec, Progress
from workers.data import open_dataset
from workers.graph.resnets import RESNETS
from workers.places import USUAL, choose
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings

ARCHITECTURE, WIDTH = "cifar_resnet8", 24
SETTINGS = TrainingSettings(epochs=6, learning_rate=0.1)


def trained_sample(assignment: Assignment) -> tuple[Path, str]:
    """(weights, architecture). Started again after a kill, it goes on from the last epoch."""
    settings = assignment.settings
    scratch = settings.data / "sample"
    scratch.mkdir(parents=True, exist_ok=True)
    assignment.tell("Reading the sample")
    dataset = open_dataset("sample", cache=settings.data / "datasets", seed=0)
    preprocessing = ImagePreprocessing(channels=1, height=28, width=28, mean=(0.0,), std=(1.0,))
    data = dataset.prepare(preprocessing, settings.data / "datasets")
    spec = ModelSpec(
        name="sample", sha256="0" * 64, architecture=ARCHITECTURE, classes=10, preprocessing=preprocessing
    )

    def tell(progress: Progress) -> None:
        assignment.tell(f"Training: {progress.text}", share=0.9 * progress.share)
        if "epoch" in progress.values:
            assignment.point(0, progress.values)

    torch.manual_seed(0)
    net = RESNETS[ARCHITECTURE](num_classes=10, in_channels=1, width=WIDTH)
    place = choose(USUAL, settings.threads).steps
    context = Context(
        data=data,
        original=Candidate(spec),
        runtime=place.runtime,
        target=place.target,
        device=torch.device(settings.device),
        seed=0,
        scratch=scratch,
        tell=tell,
    )
    train(net, context, settings=SETTINGS, loss=cross_entropy())
    file = assignment.folder / "sample.pt"
    torch.save(net.state_dict(), file)
    return file, ARCHITECTURE
