"""The network and the data of the method benchmarks: an 8-layer ResNet of 9.4 MMACs on Fashion-MNIST.

    python -m tests.benchmarks.fashion FOLDER

Trains it (about 25 minutes of one core; started again, it goes on from the last epoch). The data comes from
Debian's package dataset-fashion-mnist, or is downloaded.
"""

import dataclasses
import sys
from pathlib import Path

import torch

from workers.base import Candidate, Context, ImagePreprocessing, ModelSpec, Progress, Target
from workers.catalog import RUNTIMES
from workers.data import open_dataset
from workers.data.loading import ImageData
from workers.graph.importing import import_model
from workers.graph.resnets import RESNETS
from workers.host import host_facts
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings

ARCHITECTURE = "cifar_resnet8"
PREPROCESSING = ImagePreprocessing(channels=1, height=28, width=28, mean=(0.0,), std=(1.0,))
SETTINGS = TrainingSettings(epochs=15, learning_rate=0.1, augmentation="crop_flip")


@dataclasses.dataclass(frozen=True)
class Fashion:
    """model: trained. sha256: of the data."""

    model: Candidate
    data: ImageData
    sha256: str


def fashion(folder: Path) -> Fashion:
    """Trained at the first call; kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = open_dataset("FashionMNIST", cache=folder / "datasets", seed=0)
    data = dataset.prepare(PREPROCESSING, folder / "datasets")
    weights = folder / "fashion.pt"
    if not weights.exists():
        _train(data, folder, weights)
    imported = folder / "imported"
    imported.mkdir(exist_ok=True)
    model = import_model(
        weights,
        imported,
        architecture=ARCHITECTURE,
        size=28,
        mean=PREPROCESSING.mean,
        std=PREPROCESSING.std,
        samples=dataset.specimens(8),
    )
    return Fashion(model, data, dataset.sha256)


def _train(data: ImageData, folder: Path, weights: Path) -> None:
    torch.manual_seed(0)
    net = RESNETS[ARCHITECTURE](num_classes=10, in_channels=1)
    spec = ModelSpec(
        name="fashion", sha256="0" * 64, architecture=ARCHITECTURE, classes=10, preprocessing=PREPROCESSING
    )
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    context = Context(
        data=data,
        original=Candidate(spec),
        runtime=RUNTIMES["onnxruntime"](),
        target=Target(host=host_facts().host),
        device=torch.device("cpu"),
        seed=0,
        scratch=scratch,
        tell=_tell,
    )
    train(net, context, settings=SETTINGS, loss=cross_entropy())
    torch.save(net.state_dict(), weights)


def _tell(progress: Progress) -> None:
    if progress.values:
        print(progress.text, flush=True)


if __name__ == "__main__":
    fashion(Path(sys.argv[1]))
