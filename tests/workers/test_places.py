"""What a person may ask for, on a machine with these runtimes and on one with others."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from workers import places
from workers.base import Runtime
from workers.catalog import RUNTIMES
from workers.errors import ParedownError, SomethingMissing
from workers.places import TOGETHER, choose, of_steps, present, runtime_facts
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.runtimes.openvino import OpenVino
from workers.runtimes.torch_eager import TorchEager


class Cuda(OnnxRuntime):
    @classmethod
    def id(cls) -> str:
        return "onnxruntime"

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return "cpu", "cuda"


class NoOpenVino(OpenVino):
    @classmethod
    def missing(cls) -> str | None:
        return "The package openvino is not installed."


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    there: Mapping[str, type[Runtime]] = {
        "torch_eager": TorchEager,
        "openvino": NoOpenVino,
        "onnxruntime": Cuda,
    }
    monkeypatch.setattr(places, "RUNTIMES", MappingProxyType(there))


def test_a_name_is_a_target_with_device_version_and_threads() -> None:
    choice = choose("onnxruntime:cuda", threads=3)
    (place,) = choice.places
    target = place.target
    assert (target.runtime, target.device, target.threads, target.batch) == ("onnxruntime", "cuda", 3, 1)
    assert target.version == OnnxRuntime.version()
    assert target.engine == f"onnxruntime {target.version} on cuda"
    assert place.runtime.device == "cuda"
    assert choice.steps == place
    assert choose("onnxruntime", threads=3).places[0].target != target


def test_a_machine_with_a_name_is_another_target_and_one_without_reads_as_before() -> None:
    """Targets are compared as JSON: rows of before there were names must stay the same target."""
    (named,) = choose("torch_eager", threads=1, target="pi5").places
    (plain,) = choose("torch_eager", threads=1).places
    assert named.target.model_dump() == plain.target.model_dump() | {"name": "pi5"}
    assert "name" not in plain.target.model_dump(mode="json")
    assert {place.target.name for place in choose("all", threads=1, target="pi5").places} == {"pi5"}


def test_all_and_fastest_are_what_is_here_the_usual_one_first() -> None:
    assert list(present()) == ["onnxruntime", "onnxruntime:cuda", "torch_eager"]
    for name, each in (("all", True), ("fastest", False)):
        choice = choose(name, threads=1)
        assert [place.target.runtime for place in choice.places] == ["onnxruntime"] * 2 + ["torch_eager"]
        assert (choice.each, choice.fastest) == (each, True)
        assert choice.steps.target == choose("onnxruntime", threads=1).steps.target
        assert "ONNX Runtime" in choice.note


def test_steps_choose_by_time_elsewhere_where_the_runtime_times_no_layers() -> None:
    choice = choose("torch_eager", threads=1)
    assert choice.places[0].target.runtime == "torch_eager"
    assert choice.steps.target.runtime == "onnxruntime"
    assert "torch eager runs whole models only" in choice.note
    assert choose("onnxruntime", threads=1).note == ""


def test_what_is_missing_or_unknown_is_refused_with_the_way_out() -> None:
    with pytest.raises(SomethingMissing, match=r"not installed\. pip install 'paredown\[openvino\]'\."):
        choose("openvino", threads=1)
    with pytest.raises(
        ParedownError, match="names are onnxruntime, onnxruntime:cuda, torch_eager, fastest, all"
    ):
        choose("tflite", threads=1)
    with pytest.raises(ParedownError, match="is not known here"):
        choose("torch_eager:cuda", threads=1)


def test_facts_say_what_is_here_first_and_how_to_add_the_rest() -> None:
    assert [(facts.id, bool(facts.missing)) for facts in runtime_facts()] == [
        ("onnxruntime", False),
        ("torch_eager", False),
        ("openvino", True),
    ]


def test_every_runtime_says_how_to_get_it() -> None:
    for runtime in RUNTIMES.values():
        assert runtime.title
        assert runtime.package
        assert runtime.install.startswith(("pip install", "apt install"))


def test_what_steps_are_timed_in_can_be_told_without_the_machine() -> None:
    for name in (*present(), *TOGETHER):
        steps = choose(name, 1).steps
        device = "" if steps.target.device == steps.runtime.devices()[0] else f":{steps.target.device}"
        assert of_steps(name) == steps.runtime.id() + device, name
