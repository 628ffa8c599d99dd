"""Archives that lie about their members, names and weights. Each is refused before it is read any further."""

import contextlib
import io
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workers.graph.conftest import CONSTANTS, MODEL, WEIGHTS, Inspect, Refused, Remake
from workers.errors import ModelRefused
from workers.graph.archive import read_archive
from workers.graph.program import as_written


def test_the_honest_one_is_taken(remake: Remake, look: Inspect) -> None:
    assert look(remake())["spec"]["classes"] == 3


@pytest.mark.parametrize(
    ("member", "what"),
    [
        ("../../evil", "does not belong"),
        ("/etc/evil", "does not belong"),
        ("data/weights/../../evil", "does not belong"),
        ("data/weights/weight_0.so", "does not belong"),
        ("data/constants/custom_obj_0", "does not belong"),
        ("data/aotinductor/model/wrapper.so", "does not belong"),
        ("data/executorch/model.pte", "does not belong"),
        ("models/other.json", "does not belong"),
        ("extra/../../evil", "does not belong"),
        ("data/weights/model.pt", "as a pickle"),
        ("data/constants/model.pt", "as a pickle"),
    ],
)
def test_members_that_no_program_has(
    member: str, what: str, remake: Remake, look: Inspect, refused: Refused
) -> None:
    path = remake({member: b"x"})
    with refused(what):
        look(path)


def test_a_second_top_folder(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/extra/more", b"x")
    with refused("does not belong"):
        look(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_twice(remake: Remake, honest: dict[str, bytes], look: Inspect, refused: Refused) -> None:
    path = remake()
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"archive/{MODEL}", honest[MODEL])
    with refused("twice"):
        look(path)


def test_compressed_bomb(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({"data/weights/weight_0": b"\0" * 200_000_000}, method=zipfile.ZIP_DEFLATED)
    with refused("more than the file can hold"):
        look(path)
    path = remake(method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"x" * 60_000  # makes room for what the others save
    with refused("compressed member"):
        look(path)


def test_overlapping_members(remake: Remake, look: Inspect, refused: Refused) -> None:
    """A thousand entries that share the bytes of one: the sum is more than the file."""
    path = remake({"data/weights/weight_0": b"\0" * 100_000})
    with zipfile.ZipFile(path) as file:
        first = file.getinfo("archive/data/weights/weight_0")
    with zipfile.ZipFile(path, "a") as file:
        for index in range(1000):
            twin = zipfile.ZipInfo(f"archive/data/weights/weight_{index + 100}")
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = first.file_size
            file.filelist.append(twin)
        file._didModify = True  # type: ignore[attr-defined]
    with refused("more than the file can hold"):
        look(path)


def test_huge_declared_size_of_an_empty_record(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    data = bytearray(path.read_bytes())
    end = data.rindex(b"archive/data/weights/weight_0") - 46  # in the central directory
    data[end + 24 : end + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    with refused("more than the file can hold"):
        look(path)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_cut_off(keep: float, remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with refused("damaged or cut off"):
        look(path)


def test_flipped_weight_bytes(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    data = bytearray(path.read_bytes())
    place = data.index(b"weight_0") + 40
    data[place : place + 8] = b"\xff" * 8
    path.write_bytes(data)
    with refused("damaged or cut off"):
        look(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sizes": [{"as_int": 10**9}] * 4}, "but the file holds 108 numbers"),
        ({"sizes": [{"as_int": -4}, {"as_int": 3}, {"as_int": 3}, {"as_int": 3}]}, "a size of -4"),
        ({"strides": [{"as_int": 10**6}] * 4}, "but the file holds 108 numbers"),
        ({"strides": [{"as_int": 0}] * 4, "sizes": [{"as_int": 1000}] * 4}, "but the file holds"),
        ({"strides": [{"as_int": -1}] * 4}, "a size of -1"),
        ({"storage_offset": {"as_int": 10**6}}, "but the file holds 108 numbers"),
        ({"sizes": [{"as_int": 10**4000}] * 4}, "a size of"),
        ({"sizes": [{"as_int": 1}] * 100_000, "strides": [{"as_int": 1}] * 100_000}, "has the shape"),
        ({"sizes": [{"as_int": True}] * 4}, "a size of True"),
        ({"dtype": 9}, "number format 9"),
        ({"dtype": 8}, "but the file holds 54 numbers"),
        ({"sizes": None}, "not a well-formed"),
    ],
)
def test_weights_that_reach_outside_their_record(
    change: dict[str, Any], what: str, remake: Remake, look: Inspect, refused: Refused
) -> None:
    path = remake(edit=lambda t: t["config"]["conv.weight"]["tensor_meta"].update(change), of=WEIGHTS)
    with refused(what):
        look(path)


def test_many_copies_of_one_large_record(remake: Remake, look: Inspect, refused: Refused) -> None:
    def copy(table: Any) -> None:
        for index in range(3000):
            entry = json.loads(json.dumps(table["config"]["conv.weight"]))
            entry["tensor_meta"]["sizes"] = [{"as_int": 1_000_000 - index}]
            entry["tensor_meta"]["strides"] = [{"as_int": 1}]
            table["config"][f"copy{index}"] = entry

    path = remake({"data/weights/weight_0": b"\0" * 4_000_000}, edit=copy, of=WEIGHTS)
    with refused("bytes of weights out of"):
        look(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_not_finite(
    value: float, dtype: torch.dtype, remake: Remake, look: Inspect, refused: Refused
) -> None:
    weight = torch.ones(4, 3, 3, 3, dtype=dtype)
    weight[1, 1] = value
    raw = weight.view(torch.uint8).numpy().tobytes()
    number = {torch.float16: 6, torch.float32: 7, torch.float64: 8, torch.bfloat16: 13}[dtype]
    path = remake(
        {"data/weights/weight_0": raw},
        edit=lambda t: t["config"]["conv.weight"]["tensor_meta"].update(dtype=number),
        of=WEIGHTS,
    )
    with refused("9 NaN or infinite weights"):
        look(path)


@pytest.mark.parametrize("name", ["a b", "a\nb", "a'", 'a"', "a;b", "a..b", ".a", "", "ä", "a" * 600, "a(b)"])
def test_parameter_names(name: str, remake: Remake, look: Inspect, refused: Refused) -> None:
    def rename(table: Any) -> None:
        table["config"][name] = table["config"].pop("conv.weight")

    path = remake(edit=rename, of=WEIGHTS)
    with refused("has a parameter named"):
        look(path)


@pytest.fixture
def renamed(remake: Remake, honest: dict[str, bytes]) -> Callable[[str], Path]:
    """The archive with `fc.bias` under another name."""

    def rename(name: str) -> Path:
        weights, program = json.loads(honest[WEIGHTS]), json.loads(honest[MODEL])
        weights["config"][name] = weights["config"].pop("fc.bias")
        for spec in program["graph_module"]["signature"]["input_specs"]:
            if spec.get("parameter", {}).get("parameter_name") == "fc.bias":
                spec["parameter"]["parameter_name"] = name
        return remake({WEIGHTS: json.dumps(weights).encode(), MODEL: json.dumps(program).encode()})

    return rename


@pytest.mark.parametrize(
    "name", ["__class__", "forward", "graph", "code", "class", "import.x", "state_dict.0"]
)
def test_names_of_a_modules_own_attributes(name: str, renamed: Callable[[str], Path]) -> None:
    """They land beside the attribute, never on it."""
    module = as_written(read_archive(renamed(name)))
    assert type(module).__mro__[1] is torch.fx.GraphModule
    assert module(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    assert f"{name.split('.')[0]}_" in {key.split(".")[0] for key in module.state_dict()}


@pytest.mark.parametrize("name", ["_parameters", "_modules.x", "training", "conv.weight.x"])
def test_names_where_something_stands(
    name: str, renamed: Callable[[str], Path], look: Inspect, refused: Refused
) -> None:
    path = renamed(name)
    with refused("is there twice|lies inside a tensor"):
        look(path)


def test_random_bytes_never_do_more_than_be_refused(remake: Remake, look: Inspect) -> None:
    data = remake().read_bytes()
    path = remake(name="fuzzed.pt2")

    @settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck], database=None)
    @given(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=40))
    def fuzz(place: int, noise: bytes) -> None:
        path.write_bytes(data[:place] + noise + data[place + len(noise) :])
        start = time.monotonic()
        with contextlib.suppress(ModelRefused):
            look(path)
        assert time.monotonic() - start < 30

    fuzz()


def test_not_an_archive(tmp_path: Path, look: Inspect, refused: Refused) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("cat/0.png", b"x")
    (tmp_path / "m.pt2").write_bytes(buffer.getvalue())
    with refused("is a zip, but not a model"):
        look(tmp_path / "m.pt2")


def test_constants_are_checked_too(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({CONSTANTS: None})
    with refused("has no table of its constants"):
        look(path)


def test_deep_nesting(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({MODEL: b"[" * 5_000_000})
    with refused("not a well-formed"):
        look(path)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": 8}'])
def test_programs_that_are_none(content: bytes, remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({MODEL: content})
    with refused("well-formed"):
        look(path)


def test_another_format(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake(edit=lambda program: program["schema_version"].update(major=5))
    with refused("format 5, not 8"):
        look(path)
