"""How often the exported file's first guess is right."""

from collections.abc import Sequence

from scipy.stats import binomtest

from workers.base import Artefact, Bench, Measure, Measurement, Progress, Session, Split
from workers.host import logical_cores
from workers.turns import training_turn

BATCH_SIZE = 64
SPLITS: tuple[Split, ...] = ("validation", "test")


class Accuracy(Measure):
    """Top-1 accuracy with a Wilson interval (95 %; E. B. Wilson, 1927)."""

    title = "Accuracy"
    unit = "share"
    better = "higher"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:
        return [self._of_one(artefact, bench) for artefact in artefacts]

    def _of_one(self, artefact: Artefact, bench: Bench) -> list[Measurement]:
        session = bench.runtime.open(artefact.file, threads=logical_cores())
        # With early exits a batch leaves together; what counts is where each sample leaves.
        size = BATCH_SIZE if artefact.candidate.exits is None else 1
        return [self._of_split(session, split, size, bench) for split in SPLITS]

    def _of_split(self, session: Session, split: Split, size: int, bench: Bench) -> Measurement:
        correct = samples = 0
        total = len(bench.data.labels(split))
        for inputs, labels in bench.data.batches(split, size):
            with training_turn():  # not timed, but it would disturb another job's timing
                guesses = session.run(inputs.numpy()).argmax(axis=1)
            correct += int((guesses == labels.numpy()).sum())
            samples += len(labels)
            bench.tell(Progress(f"accuracy on {split}", samples / total))
        interval = binomtest(correct, samples).proportion_ci(method="wilson")
        return Measurement(
            name="accuracy",
            value=correct / samples,
            low=float(interval.low),
            high=float(interval.high),
            unit=self.unit,
            better=self.better,
            split=split,
            samples=samples,
        )
