"""How a run of the queue finds the other models that its steps ask for."""

from pathlib import Path

import pytest
import torch

from db import models_
from db.artifacts import Artifacts
from db.models import DEFAULT_PROJECT, Job
from db.session import migrate, transaction
from db.settings import Settings
from tests.support.arrays import candidate, small_net
from workers.assignment import Assignment
from workers.graph.archive import trace, write_archive
from workers.recipe import parse_recipe
from workers.work.running import _others


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
