"""Early exits, ours and the peers', on one network: accuracy against latency of the exported files.

    python -m tests.benchmarks.exits train FOLDER [--device cuda] [--only PART]
    python -m tests.benchmarks.exits measure FOLDER

The network and the data are `tests.benchmarks.fashion`'s, kept in FOLDER. `train` makes every trial, on any
machine: it looks at no clock, so exits stand where this file says. Several may run at once with the same
arguments: each takes the next trial that nobody has. Everything trains for EPOCHS passes over the data, at
the same rate, from the same weights; what a peer's own trainer decides is left to it. `measure` runs on the
target and writes over results/exits.md, see `exits_measuring`. Needs `pip install earlyon`.
"""

import argparse
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock, Timeout

from tests.benchmarks.fashion import ARCHITECTURE, PREPROCESSING, Fashion, fashion
from workers.base import Candidate, Context, ModelSpec, Target
from workers.catalog import RUNTIMES
from workers.data import open_dataset
from workers.deploy.export import export_onnx, export_segments
from workers.exits.staging import cuts_of
from workers.graph.importing import file_sha256, open_model
from workers.methods.early_exit import EarlyExit
from workers.methods.structured_pruning import StructuredPruning
from workers.training.distillation import hinton
from workers.training.loop import train
from workers.training.settings import TrainingSettings

EPOCHS, RATE, SEEDS = 8, 0.02, 3
#: Of ours, how many of the passes are for the heads alone.
HEAD_EPOCHS = 3
#: Trials with this in their name see shifted and mirrored pictures; small heads learn less from them.
AUGMENTED = "augmented"
#: After the stem (6 % of the latency in ONNX Runtime on an AVX-512 core), the first (50 %) and the second
#: stage (75 %): where blocks end.
STEM, FIRST, SECOND = "relu_1", "relu_3", "relu_5"

Make = Callable[["Workshop"], Candidate]


@dataclasses.dataclass(frozen=True)
class Trial:
    """group: those of one compete on validation. exits: whether the file may stop early."""

    group: str
    name: str
    seed: int
    make: Make = dataclasses.field(repr=False, compare=False)

    @property
    def title(self) -> str:
        return f"{self.group} - {self.name} - {self.seed}"


@dataclasses.dataclass(frozen=True)
class Workshop:
    """What a trial is made with. folder: of the trial alone."""

    task: Fashion
    device: torch.device
    seed: int
    epochs: int
    augmented: bool
    folder: Path

    @property
    def settings(self) -> TrainingSettings:
        augmentation: Literal["none", "crop_flip"] = "crop_flip" if self.augmented else "none"
        return TrainingSettings(epochs=self.epochs, learning_rate=RATE, augmentation=augmentation)

    @property
    def context(self) -> Context:
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        return Context(
            data=self.task.data,
            original=self.task.model,
            runtime=RUNTIMES["onnxruntime"](),
            target=Target(host="here"),
            device=self.device,
            seed=self.seed,
            scratch=scratch,
            tell=lambda _: None,
        )


def ours(cuts: tuple[str, ...], shop: Workshop) -> Candidate:
    heads = max(1, round(shop.epochs * HEAD_EPOCHS / EPOCHS))
    settings = shop.settings.model_dump() | {"epochs": max(1, shop.epochs - heads), "head_epochs": heads}
    return EarlyExit.model_validate(settings | {"exits": cuts}).apply(shop.task.model, shop.context)


def pruned(amount: float, shop: Workshop) -> Candidate:
    """A static network: fewer channels, then as many passes with the uploaded model as teacher."""
    made = StructuredPruning(amount=amount, round_to=4, recovery="none").apply(shop.task.model, shop.context)
    assert made.graph is not None
    assert shop.task.model.graph is not None
    train(made.graph, shop.context, settings=shop.settings, loss=hinton(shop.task.model.graph))
    return made


def trials() -> Iterator[Trial]:
    from tests.benchmarks.exits_peers import branchynet, earlyon_joint, earlyon_two_stage

    early, late = (STEM, FIRST), (FIRST, SECOND)
    makes: dict[tuple[str, str], Make] = {
        ("ours", "after the stem"): partial(ours, (STEM,)),
        ("ours", "after stage 1"): partial(ours, (FIRST,)),
        ("ours", "after the stem and stage 1"): partial(ours, early),
        ("ours", "after stages 1 and 2"): partial(ours, late),
        ("ours", "after the stem, stages 1 and 2"): partial(ours, (*early, SECOND)),
        ("ours", f"after the stem and stage 1, {AUGMENTED}"): partial(ours, early),
        ("BranchyNet", "after the stem and stage 1"): partial(branchynet, early, (1, 1, 1), "mean"),
        ("BranchyNet", f"after the stem and stage 1, {AUGMENTED}"): partial(
            branchynet, early, (1, 1, 1), "mean"
        ),
        ("BranchyNet", "after stages 1 and 2"): partial(branchynet, late, (1, 1, 1), "mean"),
        ("BranchyNet", "after stages 1 and 2, weights 1 0.3 0.3"): partial(
            branchynet, late, (1, 0.3, 0.3), "mean"
        ),
        ("BranchyNet", "after the stem and stage 1, our heads"): partial(
            branchynet, early, (1, 1, 1), "ours"
        ),
        ("earlyon", "after the stem and stage 1, two stages"): partial(earlyon_two_stage, early),
        ("earlyon", "after the stem and stage 1, joint"): partial(earlyon_joint, early),
        ("earlyon", "after stages 1 and 2, two stages"): partial(earlyon_two_stage, late),
        ("earlyon", "after stages 1 and 2, joint"): partial(earlyon_joint, late),
        ("static", f"pruned by 50 % of the MACs, {AUGMENTED}"): partial(pruned, 0.5),
        ("static", f"pruned by 65 % of the MACs, {AUGMENTED}"): partial(pruned, 0.65),
        ("static", f"pruned by 80 % of the MACs, {AUGMENTED}"): partial(pruned, 0.8),
        ("static", f"pruned by 90 % of the MACs, {AUGMENTED}"): partial(pruned, 0.9),
        ("static", "pruned by 80 % of the MACs"): partial(pruned, 0.8),
    }
    for seed in range(SEEDS):
        for (group, name), make in makes.items():
            yield Trial(group, name, seed, make)


def place_of(folder: Path, trial: Trial) -> Path:
    return folder / "trials" / trial.title.replace("%", "percent").replace(" ", "_")


def train_all(options: argparse.Namespace) -> None:
    task = load(options.folder, options.limit)
    for trial in trials():
        place = place_of(options.folder, trial)
        if options.only not in trial.title or (place / "about.json").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(place / "lock", timeout=0):
                print(trial.title, flush=True)
                device = torch.device(options.device)
                shop = Workshop(task, device, trial.seed, options.epochs, AUGMENTED in trial.name, place)
                _carry_out(trial, shop)
        except Timeout:
            continue


def _carry_out(trial: Trial, shop: Workshop) -> None:
    """Write the trial's ONNX files, and last what they are."""
    made = trial.make(shop)
    assert made.graph is not None
    about: dict[str, object] = {"notes": made.notes, "cuts": ()}
    if made.exits is None:
        export_onnx(made, shop.folder / "model.onnx", shop.task.data.classes)
    else:
        export_segments(made, shop.folder / "model.onnx")
        about["cuts"] = [node.name for node in cuts_of(made.graph)]
    (shop.folder / "about.json").write_text(json.dumps(about))
    shutil.rmtree(shop.folder / "scratch", ignore_errors=True)


def load(folder: Path, limit: int = 0) -> Fashion:
    """The model as it was imported once; of every split the first `limit` samples, 0 for all."""
    file, weights = folder / "imported" / "model.pt2", folder / "fashion.pt"
    if not file.exists():
        fashion(folder)
    spec = ModelSpec(
        name="fashion",
        sha256=file_sha256(weights),
        architecture=ARCHITECTURE,
        classes=10,
        preprocessing=PREPROCESSING,
    )
    dataset = open_dataset("FashionMNIST", cache=folder / "datasets", seed=0)
    data = dataset.prepare(PREPROCESSING, folder / "datasets")
    if limit:
        data = dataclasses.replace(
            data,
            split_labels={split: labels[:limit] for split, labels in data.split_labels.items()},
            splits={split: rows[:limit] for split, rows in data.splits.items()},
        )
    return Fashion(open_model(file, spec), data, dataset.sha256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("phase", choices=("train", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="trials whose title holds this")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="fewer, to try this script")
    parser.add_argument("--limit", type=int, default=0, help="samples per split, to try this script")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.phase == "train":
        train_all(options)
    else:
        from tests.benchmarks.exits_measuring import measure_all

        measure_all(options.folder, list(trials()), options.limit)


if __name__ == "__main__":
    main()
