"""What a job does right now, in words: the same on a page as it is drawn and in what it polls."""

from collections.abc import Collection

from db.models import Job
from db.workers import target_of


def sentence(job: Job, online: Collection[str]) -> str:
    """online: the queues that workers take from; a job of a machine elsewhere is done by nobody else."""
    target = target_of([job.queue])
    if job.state == "queued" and target and job.queue not in online:
        return f"Waits for target {target}, which is offline"
    return job.text or {"queued": "Waiting for a worker", "running": "Starting"}.get(job.state, "")
