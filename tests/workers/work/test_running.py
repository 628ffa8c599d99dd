"""How a run of the queue finds the other models that its steps ask for, and what it says of its stages."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from db import jobs, models_, runs
from db.artifacts import Artifacts
from db.models import DEFAULT_PROJECT, Job
from db.session import migrate, reading, transaction
from db.settings import Settings
from tests.support import exits
from tests.support.arrays import candidate, small_net
from workers import pipeline
from workers.assignment import Assignment
from workers.base import Progress
from workers.data import ImageData
from workers.graph.archive import trace, write_archive
from workers.recipe import parse_recipe
from workers.work import running
from workers.work.files import prepared
from workers.work.running import CHOSEN_HERE, _others


@pytest.mark.parametrize("name", ["big", "1" * 64, "unknown"])
def test_a_teacher_is_found_by_name_or_hash(tmp_path: Path, name: str) -> None:
    settings = Settings(data=tmp_path)
    migrate(settings.database)
    spec = candidate(None).spec.model_copy(update={"sha256": "1" * 64})
    write_archive(trace(small_net(), spec.preprocessing), tmp_path / "model.pt2")
    sha256 = Artifacts(settings.artifacts).add(tmp_path / "model.pt2")
    with transaction(settings.database) as session:
        model = models_.add(session, name="big", upload_sha256="1" * 64)
        models_.imported(
            session,
            model.id,
            spec=spec.model_dump(mode="json"),
            facts={},
            file_sha256=sha256,
            file_name="model.pt2",
        )
    steps = f"[{{method: distillation, teacher: other, teacher_model: '{name}'}}, {{method: fine_tuning}}]"
    recipe = parse_recipe(f"steps: {steps}", "r")
    found = _others(Assignment(Job(kind="run"), 1, settings, tmp_path), recipe, DEFAULT_PROJECT)
    if name == "unknown":
        assert found == {}
        return
    images = torch.randn(2, 1, 8, 8)
    graph = found[name].graph
    assert graph is not None
    assert found[name].spec == spec
    torch.testing.assert_close(graph(images), small_net()(images))


def test_what_one_run_says_is_kept_with_its_stages_and_not_with_the_experiment(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(exits.project(tmp_path_factory), tmp_path, dirs_exist_ok=True)
    settings, converted = Settings(data=tmp_path), "The pictures are converted."
    steps = [{"method": "structured_pruning", "amount_of": amount_of} for amount_of in ("latency", "macs")]
    with transaction(settings.database) as session:
        experiment = runs.experiments(session)[0]
        row = runs.add(session, experiment, name="r", recipe={"name": "r", "steps": steps})
        request = {"runtime": "onnxruntime", "target": "pi5"}
        job = jobs.add(session, "run", row.id, queue="cpu", request=request)

    def carried_out(asked: pipeline.Job) -> pipeline.Outcome:
        file = tmp_path / "model.onnx"
        file.write_bytes(b"onnx")
        made = [
            pipeline.Stage(
                index=index, method=method, settings={}, key=str(index), file=file, seconds=1.0, cached=False,
                notes=(f"Of stage {index}.",), parity=None,
            )
            for index, method in enumerate((None, *["structured_pruning"] * 2))
        ]  # fmt: skip
        for stage in made:
            asked.tell(pipeline.Event(stage.index, stage.method, Progress("done", 1.0), finished=stage))
        return pipeline.Outcome(tuple(made), None, ("The model guesses.",))

    def told(*given: object) -> ImageData:
        data = prepared(*given)  # type: ignore[arg-type]
        return dataclasses.replace(data, problems=(*data.problems, converted))

    monkeypatch.setattr(running, "run", carried_out)
    monkeypatch.setattr(running, "prepared", told)
    exits.do(settings, job.id)
    with reading(settings.database) as session:
        found = runs.whole(session, row.id)
        assert found is not None
        assert [stage.notes for stage in found.stages] == [
            [converted, "Of stage 0."],
            ["Of stage 1.", CHOSEN_HERE.format(target="pi5")],
            ["Of stage 2."],
        ]
        assert found.warnings == runs.warnings(session, found.experiment_id) == ["The model guesses."]
        (measuring,) = jobs.measuring(session, row.id)
    assert measuring.request["target"] == "pi5"
