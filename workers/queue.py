"""Wake-up calls. The database is the only truth: a lost message costs a worker's next look, two seconds.

Every worker is woken by every call, through one fanout exchange, and looks in the database for jobs of its
own queues (`cpu`, `gpu`, `target.<name>`). A shared list would let a busy worker swallow the call that an
idle one waits for. An exchange per queue was tried: after a reconnect, kombu sometimes heard only the first.
"""

import logging
import threading
import time
from collections.abc import Sequence
from functools import cache, partial

from celery import Celery
from kombu.common import Broadcast
from kombu.entity import Exchange
from kombu.exceptions import OperationalError

from db.settings import Settings
from workers.watcher import Watcher

WAKE = "paredown.wake"
EXCHANGE = "paredown.wake"
log = logging.getLogger(__name__)


def celery_app(broker: str) -> Celery:
    """An app without results that never blocks for long on a broker that is away."""
    app = Celery("paredown", broker=broker, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_connect_timeout": 2.0,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        },
    )
    return app


@cache
def _publisher(broker: str) -> Celery:
    return celery_app(broker)


def wake(job_id: str, *, broker: str | None = None) -> None:
    """Tell the workers that this job waits; call it after the commit.

    Never raises for a broker that is away: the job is found by the next look.
    """
    app = _publisher(broker or Settings().broker)
    try:
        with app.producer_or_acquire() as producer:
            # A fanout exchange alone: naming a queue of our own would leave it behind in the broker.
            app.send_task(
                WAKE, (job_id,), queue=Broadcast(EXCHANGE), declare=[Exchange(EXCHANGE, type="fanout")],
                producer=producer, retry=False,
            )  # fmt: skip
    except (OperationalError, OSError) as error:
        log.warning("Broker not reached (%s); job %s waits for the next look.", error, job_id)


def serve(settings: Settings, queues: Sequence[str]) -> None:
    """A worker: watches for jobs of these queues until it is told to stop (SIGTERM, SIGINT)."""
    watcher = Watcher(settings, queues, wake=partial(wake, broker=settings.broker))
    listening = (settings.broker, watcher.woken)
    threading.Thread(target=_listen, args=listening, daemon=True).start()
    watcher.run()


def _listen(broker: str, woken: threading.Event) -> None:
    """Celery's consumer: connects again for ever; a call only sets `woken`."""
    while True:
        app = celery_app(broker)
        app.conf.task_queues = [Broadcast(EXCHANGE)]

        def hear(job_id: str) -> None:  # noqa: ARG001 - the row is looked for, not taken from a message
            woken.set()

        app.task(name=WAKE)(hear)

        try:
            app.WorkController(
                pool_cls="solo",
                concurrency=1,
                without_heartbeat=True,
                without_mingle=True,
                without_gossip=True,
            ).start()
        except Exception:  # whatever it is, jobs go on by polling, and it is tried again
            log.exception("Listening for wake-up calls failed; trying again.")
        time.sleep(2.0)
