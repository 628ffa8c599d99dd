"""The queue and the command line do the same: for one seed the same accuracies, and latencies that agree."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.plant import PAREDOWN, Plant

Numbers = list[Mapping[str, Any]]
#: An interval knows its own session. How far apart two were seen on a busy machine:
#: tests/benchmarks/results/ratio_repeatability.md.
SESSIONS = 0.0142


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with Plant(tmp_path) as plant:
        plant.start()
        plant.wait_until_imported()
        yield plant


def by_queue(plant: Plant) -> tuple[dict[str, Any], list[Numbers]]:
    """The recipe, and the measurements of every stage."""
    job_id, run_id = plant.queue_run(epochs=2)
    job = plant.wait_until_ended(job_id)
    assert (job.state, job.error) == ("done", None)
    run = plant.run(run_id)
    names = ("name", "split", "value", "low", "high")
    stages = [stage.own.measurements for stage in run.stages]
    return run.recipe, [[{name: getattr(m, name) for name in names} for m in stage] for stage in stages]


def by_terminal(recipe: Mapping[str, Any], folder: Path) -> list[Numbers]:
    """In folders of its own, with the files that the plant was given."""
    (folder / "recipe.json").write_text(json.dumps(recipe))
    asked = "run recipe.json --model net.pt --arch cifar_resnet8 --size 12 --dataset pictures.npz --out out"
    environment = os.environ | {"PAREDOWN_DATA": str(folder / "other"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*PAREDOWN, *asked.split()],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    return [stage["measurements"] for stage in (report["baseline"], *report["stages"])]


def values(numbers: Iterable[Mapping[str, Any]], name: str) -> dict[str, float]:
    return {m["split"]: m["value"] for m in numbers if m["name"] == name}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_recipe_comes_to_the_same_by_queue_and_by_terminal(plant: Plant, tmp_path: Path) -> None:
    recipe, queue = by_queue(plant)
    terminal = by_terminal(recipe, tmp_path)
    assert len(queue) == len(terminal) == 3
    for one, other in zip(queue, terminal, strict=True):
        assert set(values(one, "accuracy")) == {"validation", "test"}
        for name in ("accuracy", "size", "macs", "parameters"):
            assert values(one, name) == values(other, name)
    for one, other in zip(queue[1:], terminal[1:], strict=True):
        (first,), (second,) = ([m for m in n if m["name"] == "latency_ratio"] for n in (one, other))
        print(*(f"{m['value']:.4f} ({m['low']:.4f}–{m['high']:.4f})" for m in (first, second)))
        assert first["low"] <= (1 + SESSIONS) * second["high"]
        assert second["low"] <= (1 + SESSIONS) * first["high"]
