"""What this machine is: the facts that stand beside every latency, and the cores to measure on.

Holds no user name, host name or path: reports leave the house.
"""

import hashlib
import importlib.util
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import psutil
import torch

from workers.base import Frozen

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
PACKAGES = ("paredown", "torch", "onnxruntime", "onnx", "torch_pruning", "numpy")
#: These too, where they are installed.
EXTRAS = ("nncf",)


class HostFacts(Frozen):
    """The machine as this process may use it (affinity and container limits counted in)."""

    #: Short, stable, and says nothing about whose machine it is.
    host: str
    cpu: str
    physical_cores: int
    logical_cores: int
    #: The vector instructions that torch uses, e.g. "AVX512".
    instructions: str
    #: Fast int8 dot products; without them int8 is seldom faster than float32.
    vnni: bool
    memory_bytes: int
    system: str


def host_facts() -> HostFacts:
    """Look at the machine; cheap enough to call per report."""
    capabilities = torch.cpu.get_capabilities()
    cpu = str(capabilities.get("cpu_name", platform.machine()))
    cores = usable_cores()
    return HostFacts(
        host=_fingerprint(cpu),
        cpu=cpu,
        physical_cores=min(len({_physical_core(core) for core in cores}), logical_cores()),
        logical_cores=logical_cores(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        vnni=any("vnni" in name and bool(there) for name, there in capabilities.items()),
        memory_bytes=int(min(psutil.virtual_memory().total, _memory_limit_bytes())),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def versions() -> dict[str, str]:
    """Python and the packages that decide what a number means."""
    names = (*PACKAGES, *(name for name in EXTRAS if importlib.util.find_spec(name)))
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def usable_cores() -> list[int]:
    """Ids of the logical cores that the calling thread may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def logical_cores() -> int:
    """How many threads can run at once: affinity, and the processor time a container is given."""
    return math.ceil(min(len(usable_cores()), _cpu_limit()))


@contextmanager
def pinned(threads: int) -> Iterator[bool]:
    """Keep the calling thread, and threads that it starts meanwhile, on the ``threads`` calmest cores.

    Gives False where the system cannot pin (macOS). Start no lasting thread pool inside, such as torch's:
    it would stay on these cores for good.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, calmest_cores(threads))
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)


def calmest_cores(count: int) -> list[int]:
    """The least busy usable cores, each on a physical core of its own as long as there are any."""
    load = psutil.cpu_percent(interval=0.1, percpu=True)
    taken: set[str] = set()
    ranked: list[tuple[bool, int, int]] = []
    for core in sorted(usable_cores(), key=lambda core: load[core] if core < len(load) else 0):
        ranked.append((_physical_core(core) in taken, len(ranked), core))
        taken.add(_physical_core(core))
    return [core for *_, core in sorted(ranked)[:count]]


def _physical_core(core: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(core)


def _fingerprint(cpu: str) -> str:
    """Not the host's name, which changes with every container and tells who owns it."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return hashlib.sha256(f"paredown {machine} {cpu} {os.cpu_count()}".encode()).hexdigest()[:8]


def _cpu_limit() -> float:
    """Cores' worth of time per period that the cgroups (version 2 or 1) allow."""
    limits = [math.inf]
    for text in _cgroup_files("cpu.max"):
        quota, period = text.split()
        if quota != "max":
            limits.append(int(quota) / int(period))
    for quota, period in zip(
        _cgroup_files("cpu.cfs_quota_us", "cpu"), _cgroup_files("cpu.cfs_period_us", "cpu"), strict=False
    ):
        if int(quota) > 0:
            limits.append(int(quota) / int(period))
    return min(limits)


def _memory_limit_bytes() -> float:
    texts = [*_cgroup_files("memory.max"), *_cgroup_files("memory.limit_in_bytes", "memory")]
    return min([math.inf, *(int(text) for text in texts if text != "max")])


def _cgroup_files(name: str, controller: str = "") -> list[str]:
    """The file's content in this process's cgroup and in all above it: the tightest one counts."""
    root = CGROUPS / controller
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return []
    own = next(
        (path for _, names, path in (line.split(":", 2) for line in lines) if controller in names.split(",")),
        "/",
    )
    folder = root / own.lstrip("/")
    found = [path / name for path in (folder, *folder.parents) if path.is_relative_to(root)]
    return [file.read_text().strip() for file in found if file.is_file()]
