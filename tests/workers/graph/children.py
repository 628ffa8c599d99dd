"""A stand-in for the restricted child that misbehaves as told: ``python -m tests.workers.graph.children``."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from workers.graph.sandbox import leave_network, limit_resources, limit_time


def flood(_: dict[str, Any]) -> None:
    while True:
        sys.stdout.write("x" * 65536)


def flood_with_steps(_: dict[str, Any]) -> None:
    while True:
        print('{"step": "still reading"}')


def flood_errors(request: dict[str, Any]) -> None:
    limit_resources(memory_bytes=1 << 30, file_bytes=request["file_bytes"])
    while True:
        sys.stderr.write("x" * 65536)


def say(request: dict[str, Any]) -> None:
    print(request["words"], flush=True)


def hang(_: dict[str, Any]) -> None:
    print('{"step": "reading"}', flush=True)
    time.sleep(600)


def be_killed(_: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def run_too_long(_: dict[str, Any]) -> None:
    limit_time(0.2)
    time.sleep(600)


def complain(_: dict[str, Any]) -> None:
    print("first line\nthe last line", file=sys.stderr)
    sys.exit(3)


def leave_grandchildren(request: dict[str, Any]) -> None:
    """One in the same process group, one in a session of its own; both keep the pipe open."""
    leave_network()
    for new_session in (False, True):
        grandchild = subprocess.Popen(["sleep", "600"], start_new_session=new_session)
        print(json.dumps({"step": str(grandchild.pid)}), flush=True)
    if request["reply"]:
        print('{"reply": {}}', flush=True)
        time.sleep(600)
    time.sleep(600)


def describe(request: dict[str, Any]) -> None:
    """What this process may still do, after it was restricted."""
    offline = leave_network()
    limit_resources(memory_bytes=request["memory_bytes"], file_bytes=request["file_bytes"])
    reply: dict[str, Any] = {
        "offline": offline,
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "path": sys.path,
        "limits": [
            resource.getrlimit(limit)
            for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
        ],
    }
    try:
        bytearray(request["memory_bytes"] * 2)
    except MemoryError:
        reply["memory"] = "limited"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open("large", "wb") as file:  # noqa: PTH123
            file.write(bytes(request["file_bytes"] + 1))
    except OSError:
        reply["files"] = "limited"
    try:
        socket.create_connection(("127.0.0.1", request["port"]), timeout=5).close()
        reply["connected"] = True
    except OSError:
        reply["connected"] = False
    print(json.dumps({"reply": reply}), flush=True)


ROLES: dict[str, Callable[[dict[str, Any]], None]] = {
    role.__name__: role
    for role in (
        flood, flood_with_steps, flood_errors, say, hang, be_killed, run_too_long, complain,
        leave_grandchildren, describe,
    )
}  # fmt: skip

if __name__ == "__main__":
    told = json.load(sys.stdin)
    ROLES[told["role"]](told)
