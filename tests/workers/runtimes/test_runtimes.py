"""Every runtime against the network itself, and what they do with files that they cannot run."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.support.arrays import small_net
from tests.workers.runtimes.conftest import pictures
from workers.base import Runtime
from workers.catalog import RUNTIMES
from workers.engines.child import ChildRuntime, ChildSession
from workers.errors import ModelRefused, SomethingMissing
from workers.host import pinned, usable_cores
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.runtimes.torch_compile import TorchCompile
from workers.runtimes.torch_eager import TorchEager


def here(name: str) -> Runtime:
    """Skips by name where it is not installed."""
    missing = RUNTIMES[name].missing()
    if missing:
        pytest.skip(f"{name}: {missing}")
    return RUNTIMES[name]()


def processes() -> set[int]:
    """Of runtimes, started from here."""
    gc.collect()
    found = psutil.Process().children()
    return {child.pid for child in found if "workers.engines.serving" in " ".join(child.cmdline())}


@pytest.mark.parametrize("name", RUNTIMES)
def test_gives_the_logits_of_the_network_at_every_batch(name: str, stage: Path) -> None:
    """Fails when a batch is cut to its first sample, and for half floats in place of float32."""
    runtime = here(name)
    session = runtime.open(stage, threads=1)
    for samples in (1, 3, 64):
        inputs = pictures(samples)
        with torch.no_grad():
            expected = small_net()(torch.from_numpy(inputs)).numpy()
        logits = session.run(inputs)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    seconds, disturbed = session.timed(pictures(1), 1, warm=True)
    assert 1e-6 < seconds < 1
    assert isinstance(disturbed, bool)


@pytest.mark.parametrize("name", RUNTIMES)
def test_says_why_it_cannot_run_a_file(name: str, tmp_path: Path) -> None:
    runtime = here(name)
    for suffix in (".onnx", ".pt2"):
        (tmp_path / "broken").with_suffix(suffix).write_bytes(b"no model")
    with pytest.raises(ModelRefused) as caught:
        runtime.open(tmp_path / "broken.onnx", threads=1)
    assert runtime.title in caught.value.what
    assert str(tmp_path) not in str(caught.value)


def test_torch_needs_the_archive_beside_the_file(stage: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(stage, tmp_path / "alone.onnx"))
    with pytest.raises(ModelRefused, match=r"there is no `alone\.pt2` beside it"):
        TorchEager().open(alone, threads=1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_a_process_is_shared_pinned_and_gone_after_its_files(stage: Path) -> None:
    """Fails when the process is started before the caller is pinned, or kept by what is closed."""
    assert not processes()
    runtime = TorchEager()
    with pinned(1), runtime.ready(1):
        first, second = (runtime.open(stage, threads=1) for _ in range(2))
        (number,) = processes()
        assert psutil.Process(number).cpu_affinity() == usable_cores()
        assert psutil.Process(number).num_threads() < 4
        np.testing.assert_array_equal(first.run(pictures(2)), second.run(pictures(2)))
        del first, second
        assert processes() == {number}  # ready for the next files
    assert not processes()


def test_a_runtime_that_dies_is_told_and_started_again(stage: Path) -> None:
    runtime = TorchEager()
    session = runtime.open(stage, threads=1)
    assert isinstance(session, ChildSession)
    session._child._process.kill()
    with pytest.raises(ModelRefused, match=r"its process ended \(code -9\)"):
        session.run(pictures(1))
    assert runtime.open(stage, threads=1).run(pictures(1)).shape == (1, 3)


def test_what_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, stage: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert TorchCompile.missing() == "Inductor needs a C++ compiler, and there is no no-such-compiler."
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SomethingMissing, match=r"no g\+\+ or clang\+\+.*apt install g\+\+ python3-dev"):
        TorchCompile().open(stage, threads=1)


def test_a_package_that_is_not_there_is_missing_and_what_is_there_is_not_imported() -> None:
    """In processes that cannot see them, and that can. Their libraries start threads and handle signals."""
    names = ("openvino", "ncnn", "executorch")
    hide = f"import sys; sys.modules.update(dict.fromkeys({names}))\n"
    look = f"""
import sys
from workers.places import runtime_facts
for facts in runtime_facts():
    if facts.id in {names}:
        print(facts.missing, facts.install, facts.version)
print([name for name in sys.modules if name.split(".")[0] in {names} and sys.modules[name]])
"""
    without, there = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for code in (hide + look, look)
    )
    for name in names:
        assert f"The package {name} is not installed. pip install 'paredown[{name}]'" in without
    assert there.splitlines()[-1] == without.splitlines()[-1] == "[]"


def test_a_provider_that_falls_back_to_the_processor_is_no_result(
    stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime goes on without a provider that does not start, and only logs it."""
    import onnxruntime as ort

    made = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", lambda file, options, _: made(file, options))
    with pytest.raises(ModelRefused, match="cannot use its CUDAExecutionProvider here"):
        OnnxRuntime("cuda").open(stage, threads=1)
    assert "cpu" in OnnxRuntime.devices()


def test_every_process_of_its_own_has_its_engine() -> None:
    folder = Path(sys.modules[ChildRuntime.__module__].__file__ or "").parent
    for name, runtime in RUNTIMES.items():
        assert issubclass(runtime, ChildRuntime) == (folder / f"{name}.py").exists()
