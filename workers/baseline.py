"""What the baseline's numbers say against using it as one."""

from collections.abc import Sequence

from workers.base import Measurement
from workers.data import warn_if_guessing, warn_if_trained_on
from workers.measures.accuracy import read_answers
from workers.places import Choice
from workers.stages import Stage


def warnings_of(baseline: Stage, measured: Choice, classes: Sequence[str]) -> tuple[str, ...]:
    """Sentences for the user; none when there is nothing to say, or no runtime could tell."""
    validation, test = (_correct(baseline.measurements, split) for split in ("validation", "test"))
    answers = (read_answers(baseline.file, place.target) for place in measured.places)
    given = next((found for found in answers if found is not None), None)
    found = [
        warn_if_guessing(*given, classes) if given else None,
        warn_if_trained_on(*validation, *test) if validation and test else None,
    ]
    return tuple(sentence for sentence in found if sentence)


def _correct(measurements: Sequence[Measurement], split: str) -> tuple[int, int] | None:
    """How many samples of how many the model gets right; None where no runtime could tell."""
    known = (m for m in measurements if m.name == "accuracy" and m.split == split and m.value is not None)
    accuracy = next(known, None)
    if accuracy is None:
        return None
    samples = accuracy.samples or 0
    return round((accuracy.value or 0) * samples), samples
