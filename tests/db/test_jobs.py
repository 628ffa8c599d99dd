"""A job's life on both databases; the other side's clock and rows are looked at with plain SQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text, update

from db import jobs, workers
from db.clock import seconds_now
from db.models import Job, Point, Worker
from db.session import reading, transaction


def queued(url: str, count: int = 1, queue: str = "cpu") -> list[str]:
    with transaction(url) as session:
        return [jobs.add(session, "run", "subject", queue=queue, request={}).id for _ in range(count)]


def claimed(url: str) -> tuple[str, int]:
    queued(url)
    with transaction(url) as session:
        taken = jobs.claim_next(session, ["cpu"], "w1")
    assert taken is not None
    return taken


def row(url: str, job_id: str) -> Job:
    with reading(url) as session:
        return session.get_one(Job, job_id)


def expire(url: str, job_id: str) -> None:
    with transaction(url) as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=seconds_now() - 1))


def test_every_job_is_claimed_once_by_many_threads(url: str) -> None:
    wanted = queued(url, 40)

    def take(number: int) -> list[tuple[str, int]]:
        taken = []
        while True:
            with transaction(url) as session:
                claim = jobs.claim_next(session, ["cpu"], f"w{number}")
            if claim is not None:
                taken.append(claim)
            with reading(url) as session:
                if session.execute(text("SELECT count(*) FROM job WHERE state = 'queued'")).scalar() == 0:
                    return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [claim for claims in pool.map(take, range(8)) for claim in claims]
    assert sorted(job_id for job_id, _ in taken) == sorted(wanted)
    assert {attempt for _, attempt in taken} == {1}


def test_only_jobs_of_the_own_queues_oldest_first(url: str) -> None:
    first = queued(url)[0]
    queued(url, queue="gpu")
    queued(url)
    with transaction(url) as session:
        assert jobs.claim_next(session, ["target.pi"], "w") is None
        assert jobs.claim_next(session, ["cpu"], "w") == (first, 1)


def test_the_lease_follows_the_databases_clock(url: str) -> None:
    job_id, attempt = claimed(url)
    with transaction(url) as session:
        now = session.scalar(seconds_now().select())
        assert jobs.heartbeat(session, job_id, attempt) is False
    lease = row(url, job_id).lease_until
    assert lease is not None
    assert now is not None
    assert lease - now == pytest.approx(jobs.LEASE_SECONDS, abs=2)


def test_a_stale_attempt_changes_nothing(url: str) -> None:
    job_id, old = claimed(url)
    expire(url, job_id)
    with transaction(url) as session:
        assert jobs.reap(session) == [job_id]
        assert jobs.claim(session, job_id, "w2") == old + 1
    before = row(url, job_id)
    with transaction(url) as session:
        assert jobs.heartbeat(session, job_id, old) is None
        assert not jobs.progress(session, job_id, old, stage=7, share=0.7, text="late")
        assert not jobs.end(session, job_id, old, "done")
        assert not jobs.release(session, job_id, old)
        assert not jobs.lose(session, job_id, old, "late")
    after = row(url, job_id)
    assert (after.state, after.text, after.stage, after.worker) == ("running", before.text, 0, "w2")


def test_a_retried_job_keeps_counting_attempts(url: str) -> None:
    """Otherwise the process of before the retry could write again."""
    job_id, attempt = claimed(url)
    with transaction(url) as session:
        assert not jobs.retry(session, job_id)
        jobs.end(session, job_id, attempt, "failed", {"where": "a", "what": "b", "fix": "c"})
        assert jobs.retry(session, job_id)
        assert jobs.claim(session, job_id, "w2") == attempt + 1
        assert not jobs.end(session, job_id, attempt, "done")
    assert row(url, job_id).error is None


def test_three_losses_in_a_row_fail_the_job(url: str) -> None:
    job_id, _ = claimed(url)
    for loss in range(1, jobs.MAX_LOSSES + 1):
        expire(url, job_id)
        with transaction(url) as session:
            again = jobs.reap(session)
            assert again == ([job_id] if loss < jobs.MAX_LOSSES else [])
            jobs.claim(session, job_id, "w")
    job = row(url, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert set(job.error) == {"where", "what", "fix"}


def test_a_job_that_gets_on_may_lose_as_many_workers_again(url: str) -> None:
    job_id, _ = claimed(url)
    for epoch in range(3 * jobs.MAX_LOSSES):
        with transaction(url) as session:
            jobs.point(session, job_id, 1, epoch, {"epoch": epoch})
        expire(url, job_id)
        with transaction(url) as session:
            assert jobs.reap(session) == [job_id]
            jobs.claim(session, job_id, "w")
    with transaction(url) as session:  # an epoch that is told again is no progress
        jobs.point(session, job_id, 1, 0, {"epoch": 0})
    assert row(url, job_id).losses == 1
    with reading(url) as session:
        assert session.query(Point).count() == 3 * jobs.MAX_LOSSES


def test_a_live_lease_is_not_reaped_and_a_new_process_reclaims(url: str) -> None:
    job_id, _ = claimed(url)
    with transaction(url) as session:
        assert jobs.reap(session) == []
        assert jobs.reclaim(session, "w2") == []
        assert jobs.reclaim(session, "w1") == [job_id]
    assert row(url, job_id).state == "queued"


def test_cancel(url: str) -> None:
    running, attempt = claimed(url)
    waiting = queued(url)[0]
    with transaction(url) as session:
        jobs.request_cancel(session, waiting)
        jobs.request_cancel(session, running)
        assert jobs.claim(session, waiting, "w") is None
        assert jobs.heartbeat(session, running, attempt) is True
    assert (row(url, waiting).state, row(url, running).state) == ("cancelled", "running")
    expire(url, running)  # its worker is lost before it noticed
    with transaction(url) as session:
        assert jobs.reap(session) == []
    assert row(url, running).state == "cancelled"


def test_what_waits_for_a_gpu_goes_to_the_cpu_once_none_is_online(url: str) -> None:
    waiting = queued(url, queue="gpu")
    with transaction(url) as session:
        workers.seen(session, "w", queues=["gpu", "cpu"], device="cuda")
        assert jobs.leave_gpu(session) == []
        session.execute(update(Worker).values(seen_at=seconds_now() - workers.ONLINE_SECONDS - 1))
    with transaction(url) as session:
        assert jobs.leave_gpu(session) == waiting
    assert row(url, waiting[0]).queue == "cpu"
