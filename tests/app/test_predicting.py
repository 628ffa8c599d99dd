"""Guesses held against what was measured."""

import pytest

from app.predicting import check
from tests.workers.prediction.tables import TARGET, spec, table
from workers.graph.students import known
from workers.prediction.expecting import Predictor
from workers.prediction.reading import read_plan

MODEL = spec("cifar_resnet8", 32)


def test_numbers_of_the_machine_count_under_any_name() -> None:
    """By hand: nothing is cut, so the guess is 1; 0.8 was measured, and elsewhere 0.5."""
    predictor = Predictor(table(read_plan(known("cifar_resnet8", MODEL, seed=0), MODEL)[0]))
    steps = [{"method": "unstructured_pruning"}]
    targets = (
        ("a", 0.8, {"name": "lab"}),
        ("b", 0.5, {"host": "0ther"}),
        ("c", 0.5, {"threads": 2}),
        ("d", 0.5, {"version": "2", "name": "lab"}),
    )
    measured = [
        (run, steps, ratio, TARGET.model_copy(update=changes).model_dump(mode="json"))
        for run, ratio, changes in targets
    ]
    found = check(predictor, measured)
    assert found is not None
    assert found.runs == 1
    assert found.error == pytest.approx(0.25, abs=0.01)
