"""Kind `predictor`, by the real job: it gives way and goes on; the next fine-tuning takes its times."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch.fx import GraphModule

from db import jobs, models_, predictors, workers
from db.artifacts import Artifacts
from db.models import Job, Predictor
from db.session import migrate, reading, transaction
from db.settings import Settings
from tests.workers.prediction.quick import model_with, quickly
from tests.workers.pruning.networks import SPEC, Residual
from workers import turns
from workers.assignment import Assignment, GaveWay
from workers.graph.archive import trace, write_archive
from workers.measures import latency
from workers.prediction.networks import Networks
from workers.prediction.table import Table
from workers.profiling import recording
from workers.work import predicting

WORKER = "here"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    quickly(monkeypatch)
    for module in (latency, recording):
        monkeypatch.setattr(module, "SITTINGS", 1)
    (locks := tmp_path / "locks").mkdir()
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(locks))
    found = Settings(data=tmp_path)
    migrate(found.database)
    return found


def asked(settings: Settings, seed: int, target: str = "") -> Job:
    """For a model that was trained otherwise."""
    graph = model_with(Residual, seed).graph
    assert graph is not None
    write_archive(trace(graph, SPEC.preprocessing), file := settings.data / f"{seed}.pt2")
    sha256 = Artifacts(settings.artifacts).add(file)
    with transaction(settings.database) as session:
        model = models_.add(session, name=f"net {seed}", upload_sha256=str(seed) * 64)
        spec = SPEC.model_copy(update={"sha256": sha256}).model_dump(mode="json")
        models_.imported(session, model.id, spec=spec, facts={}, file_sha256=sha256, file_name="model.pt2")
        predictor = predictors.ask(session, model.id, "code", target)
        return jobs.latest(session, [predictor.id])[predictor.id]


def finished(settings: Settings, job: Job) -> bool:
    """Another attempt; False when it gave way."""
    with transaction(settings.database) as session:
        attempt = jobs.claim(session, job.id, WORKER)
        assert attempt is not None
    with reading(settings.database) as session:
        found = session.get_one(Job, job.id)
    folder = settings.data / "jobs" / f"{job.id}-{attempt}"
    folder.mkdir(parents=True)
    try:
        predicting.do(Assignment(found, attempt, settings, folder))
    except GaveWay:
        with transaction(settings.database) as session:
            return not jobs.release(session, job.id, attempt)
    with transaction(settings.database) as session:
        return jobs.end(session, job.id, attempt, "done")


def table_of(settings: Settings, job: Job) -> Table:
    with reading(settings.database) as session:
        return Table.model_validate(session.get_one(Predictor, job.subject_id).table)


def test_on_a_named_machine_it_gives_way_with_what_it_built(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = workers.target_queue("pi5")
    write: Callable[..., None] = Networks._write_like
    built: list[dict[str, tuple[int, ...]]] = []
    waiting: list[str] = []

    def somebody_comes(self: Networks, graph: GraphModule, file: Path) -> None:
        built.append({name: tuple(tensor.shape) for name, tensor in graph.named_parameters()})
        write(self, graph, file)
        if not waiting:
            with transaction(settings.database) as session:
                waiting.append(jobs.add(session, "measure", "r", queue=queue, request={}).id)

    monkeypatch.setattr(Networks, "_write_like", somebody_comes)
    with transaction(settings.database) as session:
        workers.seen(session, WORKER, queues=[queue], device="cpu")
    job = asked(settings, 1, "pi5")
    assert job.queue == queue
    assert not finished(settings, job)
    kept = settings.data / "predictors" / job.subject_id
    assert len(list(kept.rglob("*.onnx"))) == len(built) == 1
    with transaction(settings.database) as session:
        jobs.request_cancel(session, waiting[0])
    assert finished(settings, job)
    table = table_of(settings, job)
    assert table.target.name == "pi5"
    assert (table.steps, table.rounded, table.device) == ((), None, "cpu")
    assert len(built) == len(table.float32) + len(table.odd)
    assert all(built.count(one) == 1 for one in built), "nothing is built twice"
    assert not kept.exists()


def test_the_next_fine_tuning_takes_the_times(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = asked(settings, 1)
    assert finished(settings, first)
    left = settings.data / "predictors" / "of a job that was cancelled"
    left.mkdir(parents=True)
    monkeypatch.setattr(Networks, "narrowed", lambda _: pytest.fail("timed again"))
    second = asked(settings, 2)
    assert finished(settings, second)
    one, two = (table_of(settings, job) for job in (first, second))
    assert one.float32 == two.float32
    assert one.key == two.key
    assert one.plan != two.plan
    assert not left.exists()
