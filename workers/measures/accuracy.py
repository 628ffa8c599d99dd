"""How often the exported file's first guess is right."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from workers.base import Artefact, Bench, Measure, Measurement, Progress, Session, Split, Target
from workers.host import logical_cores
from workers.turns import training_turn
from workers.writing import written_whole

BATCH_SIZE = 64
SPLITS: tuple[Split, ...] = ("validation", "test")


class Accuracy(Measure):
    """Top-1 accuracy with a Wilson interval (95 %; E. B. Wilson, 1927).

    The single answers are kept beside the file (`answers_file`), to compare two models sample by sample.
    """

    title = "Accuracy"
    unit = "share"
    better = "higher"
    in_runtime = True

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:
        return [self._of_one(artefact, bench) for artefact in artefacts]

    def _of_one(self, artefact: Artefact, bench: Bench) -> list[Measurement]:
        session = bench.runtime.open(artefact.file, threads=logical_cores())
        # With early exits a batch leaves together; what counts is where each sample leaves.
        size = BATCH_SIZE if artefact.candidate.exits is None else 1
        answers = {split: _guesses(session, split, size, bench) for split in SPLITS}
        labels = {split: bench.data.labels(split) for split in SPLITS}
        keep_answers(answers_file(artefact.file, bench.target), answers, labels)
        return [accuracy_of(split, answers[split] == labels[split], bench.target) for split in SPLITS]


def accuracy_of(split: Split, right: np.ndarray, target: Target, marks: tuple[str, ...] = ()) -> Measurement:
    """right: (N,) bool, of every sample of the split."""
    correct, samples = int(right.sum()), len(right)
    interval = binomtest(correct, samples).proportion_ci(method="wilson")
    return Measurement(
        name="accuracy",
        value=correct / samples,
        low=float(interval.low),
        high=float(interval.high),
        unit=Accuracy.unit,
        better=Accuracy.better,
        split=split,
        samples=samples,
        target=target,
        marks=marks,
    )


def answers_file(file: Path, target: Target) -> Path:
    """Per split `<split>` and `<split>_labels`, (N,) int32: first guesses there, and what is right."""
    return file.with_name(f"answers-{target.runtime}-{target.device}.npz")


def read_answers(file: Path, target: Target) -> tuple[np.ndarray, np.ndarray] | None:
    """(N,) first guesses for the validation samples and (N,) what is right; None where they were not kept."""
    path = answers_file(file, target)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        return kept["validation"], kept["validation_labels"]


def _guesses(session: Session, split: Split, size: int, bench: Bench) -> np.ndarray:
    """(N,) the classes with the largest logits, in the order of the split."""
    found: list[np.ndarray] = []
    done, total = 0, len(bench.data.labels(split))
    for inputs, _ in bench.data.batches(split, size):
        with training_turn():  # not timed, but it would disturb another job's timing
            found.append(session.run(inputs.numpy()).argmax(axis=1))
        done += len(inputs)
        bench.tell(Progress(f"accuracy on {split}", done / total))
    return np.concatenate(found)


def keep_answers(path: Path, answers: Mapping[Split, np.ndarray], labels: Mapping[Split, np.ndarray]) -> None:
    """Write an `answers_file` whole or not at all."""
    kept = {split: values.astype(np.int32) for split, values in answers.items()}
    right = {f"{split}_labels": values.astype(np.int32) for split, values in labels.items()}
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **kept, **right)
