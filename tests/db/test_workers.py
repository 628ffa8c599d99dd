"""Who is there, and the machines that jobs may wait for, on both databases."""

from sqlalchemy import update

from db import jobs, workers
from db.models import Worker
from db.session import reading, transaction
from tests.db.test_runs import new_run


def seen(url: str, worker: str, *queues: str) -> None:
    with transaction(url) as session:
        workers.seen(session, worker, queues=queues, device="cpu")


def ago(url: str, worker: str, seconds: float) -> None:
    """As if that long had gone by since it was seen."""
    with transaction(url) as session:
        row = update(Worker).where(Worker.id == worker)
        session.execute(row.values(seen_at=Worker.seen_at - seconds))


def targets(url: str) -> dict[str, tuple[str, bool]]:
    with reading(url) as session:
        return {target.name: (target.worker.id, target.online) for target in workers.targets(session)}


def test_a_target_stays_known_when_its_worker_ends_and_another_worker_does_not(url: str) -> None:
    seen(url, "desk-cpu-1", "cpu")
    seen(url, "shelf-target.pi5-1", "target.pi5")
    assert targets(url) == {"pi5": ("shelf-target.pi5-1", True)}
    with transaction(url) as session:
        workers.gone(session, "desk-cpu-1")
        workers.gone(session, "shelf-target.pi5-1")
        workers.gone(session, "nobody")
    with reading(url) as session:
        assert workers.online(session) == []
        assert session.get(Worker, "desk-cpu-1") is None
    assert targets(url) == {"pi5": ("shelf-target.pi5-1", False)}


def test_a_name_is_told_by_the_worker_that_was_seen_last(url: str) -> None:
    for worker in ("a", "b"):
        seen(url, worker, "target.pi5")
    ago(url, "b", 5)
    assert targets(url) == {"pi5": ("a", True)}
    ago(url, "a", workers.ONLINE_SECONDS + 1)
    assert targets(url) == {"pi5": ("b", True)}


def test_only_what_is_offline_is_forgotten(url: str) -> None:
    for name in ("pi5", "nano", "orin"):
        seen(url, name, f"target.{name}")
    for name in ("nano", "orin"):
        ago(url, name, 60)
    with transaction(url) as session:
        workers.forget(session, "pi5")
        workers.forget(session, "nano")
    assert targets(url) == {"orin": ("orin", False), "pi5": ("pi5", True)}


def test_measuring_elsewhere_is_asked_once_and_is_not_the_job_of_the_run(url: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        own = jobs.add(session, "run", run_id, queue="cpu", request={})
        first = jobs.measure(session, run_id, target="pi5", runtime="onnxruntime")
        again = jobs.measure(session, run_id, target="pi5", runtime="onnxruntime")
        other = jobs.measure(session, run_id, target="pi5", runtime="ncnn")
        assert (first.id, first.queue, first.kind) == (again.id, "target.pi5", "measure")
        assert jobs.latest(session, [run_id])[run_id].id == own.id
        assert [job.id for job in jobs.measuring(session, run_id)] == [first.id, other.id]
        assert jobs.claim_next(session, ["cpu", "gpu"], "worker") == (own.id, 1)
        assert jobs.claim_next(session, ["cpu", "gpu"], "worker") is None
        jobs.request_cancel(session, first.id)
        assert jobs.measure(session, run_id, target="pi5", runtime="onnxruntime").id != first.id
