import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import psutil
import pytest
import torch

from workers import host
from workers.host import calmest_cores, host_facts, logical_cores, pinned, usable_cores, versions

linux_only = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")


def test_facts_agree_with_other_sources() -> None:
    facts = host_facts()
    assert facts.instructions == torch.backends.cpu.get_cpu_capability()
    assert 1 <= facts.physical_cores <= facts.logical_cores <= (os.cpu_count() or 1)
    assert 0 < facts.memory_bytes <= psutil.virtual_memory().total
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and cpuinfo.exists():
        assert facts.vnni == ("vnni" in cpuinfo.read_text())


def test_host_has_the_same_name_in_every_process_and_tells_nobody_whose_it_is() -> None:
    code = "from workers.host import host_facts; print(host_facts().host)"
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    facts = host_facts()
    assert re.fullmatch("[0-9a-f]{8}", facts.host)
    assert other.stdout.strip() == facts.host
    words = set(re.split(r"\W+", facts.model_dump_json() + str(versions())))
    assert platform.node() not in words
    assert Path.home().name not in words - {""}


def test_versions_name_what_decides_a_number() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["onnxruntime"] == onnxruntime.__version__
    assert set(found) == {"python", "paredown", "torch", "onnxruntime", "onnx", "torch_pruning", "numpy"}


@linux_only
def test_pinning_is_counted_and_undone() -> None:
    before = usable_cores()
    with pinned(1) as is_pinned:
        assert is_pinned
        assert len(usable_cores()) == logical_cores() == host_facts().logical_cores == 1
    assert usable_cores() == before
    with pytest.raises(ZeroDivisionError), pinned(1):
        _ = 1 / 0
    assert usable_cores() == before


def test_where_nothing_can_be_pinned_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pinned(1) as is_pinned:
        assert not is_pinned


def test_calm_cores_come_first_but_never_two_halves_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logical cores 0 and 1 are one physical core, 2 and 3 the other."""
    monkeypatch.setattr(host, "usable_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(host, "_physical_core", lambda core: "0-1" if core < 2 else "2-3")
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: [5.0, 0.0, 60.0, 50.0])
    assert calmest_cores(1) == [1]
    assert calmest_cores(2) == [1, 3]
    assert calmest_cores(3) == [1, 3, 0]


def version_2(root: Path) -> str:
    (root / "pod/container").mkdir(parents=True)
    (root / "pod/cpu.max").write_text("150000 100000\n")  # the pod is tighter than the container
    (root / "pod/container/cpu.max").write_text("max 100000\n")
    (root / "pod/container/memory.max").write_text("1073741824\n")
    return "0::/pod/container\n"


def version_1(root: Path) -> str:
    for controller in ("cpu", "memory"):
        (root / controller / "box").mkdir(parents=True)
    (root / "cpu/box/cpu.cfs_quota_us").write_text("150000\n")
    (root / "cpu/box/cpu.cfs_period_us").write_text("100000\n")
    (root / "memory/box/memory.limit_in_bytes").write_text("1073741824\n")
    return "4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n"


@pytest.mark.parametrize("limits", [version_2, version_1])
def test_limits_of_a_container_count(
    limits: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.write_text(limits(tmp_path / "cgroup"))
    monkeypatch.setattr(host, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host, "OWN_CGROUPS", own)
    monkeypatch.setattr(host, "usable_cores", lambda: list(range(8)))
    facts = host_facts()
    assert facts.logical_cores == 2  # one and a half cores' worth of time
    assert facts.memory_bytes == 1 << 30
