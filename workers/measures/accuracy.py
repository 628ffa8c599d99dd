"""How often the exported file's first guess is right."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from workers.base import Artefact, Bench, Measure, Measurement, Progress, Session, Split
from workers.host import logical_cores
from workers.turns import training_turn

BATCH_SIZE = 64
SPLITS: tuple[Split, ...] = ("validation", "test")
#: Beside the artefact: per split `<split>` and `<split>_labels`, (N,) int32, first guesses and what is right.
ANSWERS = "answers.npz"


class Accuracy(Measure):
    """Top-1 accuracy with a Wilson interval (95 %; E. B. Wilson, 1927).

    The single answers are kept in ANSWERS beside the file, to compare two models sample by sample.
    """

    title = "Accuracy"
    unit = "share"
    better = "higher"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:
        return [self._of_one(artefact, bench) for artefact in artefacts]

    def _of_one(self, artefact: Artefact, bench: Bench) -> list[Measurement]:
        session = bench.runtime.open(artefact.file, threads=logical_cores())
        # With early exits a batch leaves together; what counts is where each sample leaves.
        size = BATCH_SIZE if artefact.candidate.exits is None else 1
        answers = {split: _guesses(session, split, size, bench) for split in SPLITS}
        labels = {split: bench.data.labels(split) for split in SPLITS}
        keep_answers(artefact.file.with_name(ANSWERS), answers, labels)
        return [accuracy_of(split, answers[split] == labels[split]) for split in SPLITS]


def accuracy_of(split: Split, right: np.ndarray, marks: tuple[str, ...] = ()) -> Measurement:
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
        marks=marks,
    )


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
    """Write ANSWERS whole or not at all."""
    kept = {split: values.astype(np.int32) for split, values in answers.items()}
    right = {f"{split}_labels": values.astype(np.int32) for split, values in labels.items()}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **kept, **right)
    partial.replace(path)
