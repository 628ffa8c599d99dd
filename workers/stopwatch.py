"""One call, timed where it happens: in this process or in that of a runtime that has its own.

Knows no model; imports nothing of Paredown, since the processes of runtimes use it too.
"""

import resource
import time
from collections.abc import Callable

#: A call on one thread that took this much more wall than processor time was kept waiting.
WAITING = 1.1


def timed(call: Callable[[], object], *, threads: int, elsewhere: bool = False) -> tuple[float, bool]:
    """Seconds of one call, and whether it was pushed off its core.

    elsewhere: other threads of this process compute; then its whole processor time counts.
    """
    switches, cpu = _involuntary_switches(threads, elsewhere), _cpu_s(elsewhere)
    start = time.perf_counter()
    call()
    wall_s = time.perf_counter() - start
    waited = threads == 1 and wall_s > WAITING * (_cpu_s(elsewhere) - cpu)
    return wall_s, waited or _involuntary_switches(threads, elsewhere) > switches


def _cpu_s(elsewhere: bool) -> float:
    return time.process_time() if elsewhere else time.thread_time()


def _involuntary_switches(threads: int, elsewhere: bool) -> int:
    """Of the calling thread, or of the whole process when others work for it."""
    own = resource.RUSAGE_SELF
    who = own if threads > 1 or elsewhere else getattr(resource, "RUSAGE_THREAD", own)
    return resource.getrusage(who).ru_nivcsw
