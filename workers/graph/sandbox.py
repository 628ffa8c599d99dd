"""A child process with nothing to steal and little to break, for looking at files from strangers.

The checks in this folder are the boundary; this is the wall behind it: an empty environment, a folder of
its own, limits on memory, time and file size, and no network where the system lets a process give it up.
What the child says is not trusted either: it may talk too much, make no sense, or never end.
"""

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import psutil

from workers.errors import GateFailed, ModelRefused, ParedownError, SettingRefused, SomethingMissing

MAX_REPLY_BYTES = 1 << 20
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_ERRORS: dict[str, type[ParedownError]] = {
    kind.__name__: kind for kind in (ModelRefused, SettingRefused, SomethingMissing, GateFailed)
}


def run_restricted(
    module: str, request: dict[str, Any], *, seconds: float, told: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Run ``python -m module`` on a JSON request; return its JSON reply.

    The child writes one JSON object per line: ``{"step": …}`` is passed to `told`, ``{"reply": …}`` is
    returned, ``{"error": [class, where, what, fix]}`` is raised here. A child that dies, hangs or says
    nothing becomes a ModelRefused that names the file; it and its own children are gone afterwards.
    """
    name, temporary = str(request["name"]), tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with temporary as folder, tempfile.TemporaryFile() as complaint:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaint,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": folder, "TMPDIR": folder},
            start_new_session=True,
        )
        try:
            reply = _converse(child, request, time.monotonic() + seconds, told)
        except TimeoutError as error:
            raise _too_slow(name, seconds) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelRefused(name, f"made its own check fail ({error!r:.120}).", _AGAIN) from error
        finally:
            _end(child)
        if reply is not None:
            return reply
        if child.returncode == -signal.SIGALRM:
            raise _too_slow(name, seconds / RUN_SHARE)
        raise ModelRefused(name, f"ended its own check early ({_last_words(child, complaint)}).", _AGAIN)


#: A model gets 1/RUN_SHARE of the whole time to run once; see `limit_time`.
RUN_SHARE = 5
_AGAIN = "Export the model again; if that does not help, please report the file."


def _too_slow(name: str, seconds: float) -> ModelRefused:
    fix = "Upload a smaller model, or try again when the machine is idle."
    return ModelRefused(name, f"was not checked within {seconds:.0f} s.", fix)


def _last_words(child: subprocess.Popen[bytes], complaint: IO[bytes]) -> str:
    length = complaint.seek(0, os.SEEK_END)
    complaint.seek(max(0, length - 2000))
    lines = complaint.read().decode(errors="replace").strip().splitlines()
    code = f"exit code {child.returncode}"
    return f"{code}: {lines[-1][:200]}" if lines else code


def _converse(
    child: subprocess.Popen[bytes], request: dict[str, Any], deadline: float, told: Callable[[str], None]
) -> dict[str, Any] | None:
    """The child's reply, or None when it ends without one.

    Raises TimeoutError at the deadline, ValueError and its like when the child makes no sense.
    """
    assert child.stdin
    with child.stdin as stdin, contextlib.suppress(BrokenPipeError):
        stdin.write(json.dumps(request).encode())
    for line in _lines(child, deadline):
        message = json.loads(line)
        if "error" in message:
            kind, where, what, fix = (str(part) for part in message["error"])
            raise _ERRORS.get(kind, ModelRefused)(where, what, fix)
        if "reply" in message:
            return dict(message["reply"])
        told(str(message["step"]))
    return None


def _lines(child: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """What the child says, line by line, until it ends; a grandchild may still hold the pipe by then."""
    assert child.stdout
    said, length = b"", 0
    with child.stdout as stdout, selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            ended = child.poll() is not None
            if not selector.select(0 if ended else min(left, 0.5)):
                if ended:
                    return
                continue
            part = os.read(stdout.fileno(), 1 << 16)
            length += len(part)
            if length > MAX_REPLY_BYTES:
                raise ValueError(f"it wrote more than {MAX_REPLY_BYTES:,} bytes")
            *lines, said = (said + part).split(b"\n")
            yield from lines
            if not part:
                return
    raise TimeoutError


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and whatever it started, also what left its process group."""
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(child.pid)
        family.suspend()  # it must not start another one meanwhile
        for process in family.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def limit_resources(*, memory_bytes: int, file_bytes: int) -> None:
    """Cap what this process may take from now on, for good.

    memory_bytes: on top of what is mapped already (torch alone maps gigabytes). file_bytes: of one file.
    """
    if sys.platform == "linux":
        mapped = psutil.Process().memory_info().vms
        _lower(resource.RLIMIT_AS, mapped + memory_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NOFILE, 256)


def limit_time(seconds: float) -> None:
    """The kernel ends this process when that much time has passed, whatever holds the interpreter then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def leave_network() -> bool:
    """Move into an empty network namespace; True when the system allows it. Call before any thread starts.

    Also ties this process's life to its parent's, gives up gaining rights (setuid programs), and keeps
    orphaned grandchildren below this process, where the parent finds them.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))
