"""A child process with nothing to steal and little to break, for looking at files from strangers.

The checks in this folder are the boundary; this is the wall behind it: an empty environment, a folder of
its own, limits on memory, time and file size, and no network where the system lets a process give it up.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import psutil

from workers.errors import GateFailed, ModelRefused, ParedownError, SomethingMissing

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MAX_LINE = 1 << 20
_ERRORS: dict[str, type[ParedownError]] = {
    kind.__name__: kind for kind in (ModelRefused, SomethingMissing, GateFailed)
}
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def run_restricted(
    module: str, request: dict[str, Any], *, seconds: int, told: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Run ``python -m module`` on a JSON request; return its JSON reply.

    The child writes one JSON object per line: ``{"step": …}`` is passed to `told`, ``{"reply": …}`` is
    returned, ``{"error": [class, where, what, fix]}`` is raised here. A child that dies, hangs or says
    nothing becomes a ModelRefused that names the file.
    """
    name = str(request["name"])
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as complaint:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaint,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": folder, "TMPDIR": folder},
            start_new_session=True,
        )
        late = threading.Event()
        timer = threading.Timer(seconds, _end_late, (child, late))
        timer.start()
        try:
            reply = _converse(child, request, told)
        finally:
            timer.cancel()
            _end(child)
            child.wait()
        if reply is not None:
            return reply
        if late.is_set():
            raise ModelRefused(
                name,
                f"was not checked within {seconds} s.",
                "Upload a smaller model, or raise PAREDOWN_IMPORT_SECONDS.",
            )
        complaint.seek(0)
        lines = complaint.read(1 << 20).decode(errors="replace").strip().splitlines()
        last = lines[-1][:200] if lines else f"exit code {child.returncode}"
        raise ModelRefused(name, f"ended its own check early ({last}).", "Export the model again.")


def _converse(
    child: subprocess.Popen[bytes], request: dict[str, Any], told: Callable[[str], None]
) -> dict[str, Any] | None:
    """The child's reply, or None when it ends without one."""
    assert child.stdin
    assert child.stdout
    with child.stdin as stdin, contextlib.suppress(BrokenPipeError):
        stdin.write(json.dumps(request).encode())
    with child.stdout as stdout:
        while line := stdout.readline(_MAX_LINE):
            message = json.loads(line)
            if "error" in message:
                kind, where, what, fix = (str(part) for part in message["error"])
                raise _ERRORS.get(kind, ModelRefused)(where, what, fix)
            if "reply" in message:
                return dict(message["reply"])
            told(str(message["step"]))
    return None


def _end_late(child: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def limit_resources(*, memory_bytes: int) -> None:
    """Cap what this process may take from now on, for good.

    memory_bytes: on top of what is mapped already (torch alone maps gigabytes); also the largest file.
    """
    if sys.platform == "linux":
        mapped = psutil.Process().memory_info().vms
        _lower(resource.RLIMIT_AS, mapped + memory_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, memory_bytes)
    _lower(resource.RLIMIT_NOFILE, 256)


def leave_network() -> bool:
    """Move into an empty network namespace; True when the system allows it. Call before any thread starts.

    Also ties this process's life to its parent's and gives up gaining rights (setuid programs).
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))
