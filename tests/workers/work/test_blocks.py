"""Kind `blocks`, by the real job: it needs no run, is not done twice, and a recipe can name what it found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import fx, nn
from torch.fx import GraphModule

from db import analyses, datasets, jobs, models_
from db.artifacts import Artifacts
from db.models import Dataset, Job, Model
from db.session import migrate, reading, transaction
from db.settings import Settings
from tests.support import exits
from tests.support.arrays import context
from workers.assignment import Assignment
from workers.base import Context, ImagePreprocessing, ModelSpec
from workers.errors import StepFailed
from workers.exits import placing
from workers.exits.heads import HeadKind
from workers.exits.placing import Spot, place_by_name
from workers.graph.archive import trace, write_archive
from workers.graph.to_onnx import to_onnx
from workers.recipe import Recipe
from workers.work import blocks
from workers.work.files import open_model_of

LOOKS = ImagePreprocessing(channels=1, height=8, width=8, mean=(0.0,), std=(1.0,))
SPEC = ModelSpec(name="net", sha256="1" * 64, architecture="chain", classes=3, preprocessing=LOOKS)
ASKED = {"head": "linear", "runtime": "onnxruntime"}


def chain() -> GraphModule:
    """Three convolutions as blocks."""
    layers: list[nn.Module] = []
    for channels in (1, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU()]
    return fx.symbolic_trace(nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 3))).eval()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(data=tmp_path)
    migrate(made.database)
    return made


def brought(settings: Settings, net: GraphModule | None = None) -> tuple[Model, Dataset]:
    """A model and a dataset, checked, and nothing else. net: None for an ONNX upload."""
    store, folder = Artifacts(settings.artifacts), settings.data
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez(folder / "few.npz", images=images, labels=np.arange(60) % 3)
    file = folder / ("model.onnx" if net is None else "model.pt2")
    if net is None:
        onnx.save(to_onnx(chain(), (1, 8, 8)), str(file))
    else:
        write_archive(trace(net, LOOKS), file)
    with transaction(settings.database) as session:
        uploaded = store.add(folder / "few.npz")
        dataset = datasets.add(session, name="few", source="few.npz", upload_sha256=uploaded)
        dataset.sha256 = "d" * 64
        model = models_.add(session, name="net", upload_sha256="1" * 64)
        models_.imported(
            session, model.id, spec=SPEC.model_dump(mode="json"), facts={}, file_sha256=store.add(file),
            file_name=file.name,
        )  # fmt: skip
        return model, dataset


def ask(settings: Settings, model: Model, dataset: Dataset, **changes: str) -> None:
    request = {"dataset": dataset.id, **ASKED, **changes}
    with transaction(settings.database) as session:
        job = jobs.add(session, "blocks", model.id, queue="cpu", request=request)
    with exits.quickly():
        exits.do(settings, job.id)


def test_what_it_finds_can_be_named_by_a_recipe(settings: Settings, tmp_path: Path) -> None:
    model, dataset = brought(settings, chain())
    ask(settings, model, dataset)
    with reading(settings.database) as session:
        (found,) = analyses.of_model(session, "blocks", model.id)
    assert found.document["about"] == blocks.about(model, dataset, **ASKED)
    assert (found.stage_id, found.target["runtime"]) == (None, "onnxruntime")
    spots = [Spot.model_validate(spot) for spot in found.document["spots"]]
    shares = [spot.share for spot in spots]
    assert shares == sorted(shares)
    assert all(0 < share <= 1 for share in shares)
    assert all(spot.head > 0 for spot in spots)
    names = [spot.name for spot in spots]
    (step,) = Recipe.model_validate({"steps": [{"method": "early_exit", "exits": names[:2]}]}).steps
    (tmp_path / "again").mkdir()
    blank = Assignment(Job(id="x", kind="run", subject_id=""), 1, settings, tmp_path / "again")
    graph = open_model_of(blank, model).graph
    assert graph is not None
    (tmp_path / "scratch").mkdir()
    places = place_by_name(graph, step.exits, "linear", context(tmp_path / "scratch"))  # type: ignore[attr-defined]
    assert [place.name for place in places] == names[:2]


def test_the_same_is_timed_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = brought(settings, chain())
    timed, whole = list[str](), placing.timed_places

    def counted(graph: GraphModule, points: Sequence[fx.Node], kind: HeadKind, where: Context) -> list[Spot]:
        timed.append(kind)
        return whole(graph, points, kind, where)

    monkeypatch.setattr(placing, "timed_places", counted)
    for head in ("linear", "linear", "conv"):
        ask(settings, model, dataset, head=head)
    assert timed == ["linear", "conv"]
    with reading(settings.database) as session:
        kept = analyses.of_model(session, "blocks", model.id)
    assert [found.document["about"]["head"] for found in kept] == ["conv", "linear"]


def test_what_has_no_blocks_is_told(settings: Settings) -> None:
    with pytest.raises(StepFailed, match="an ONNX file"):
        ask(settings, *brought(settings))
    alone = fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())).eval()
    with pytest.raises(StepFailed, match="cannot be cut"):
        ask(settings, *brought(settings, alone))
