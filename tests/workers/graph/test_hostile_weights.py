"""Files of weights that lie about what they hold. The pickled ones are in test_payloads."""

import json
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.workers.graph.conftest import Refused
from workers.errors import ModelRefused, SettingRefused
from workers.graph.architectures import build_for
from workers.graph.importing import import_model
from workers.graph.resnets import RESNETS
from workers.graph.weights import read_weights

Tensors = dict[str, torch.Tensor]


def good() -> Tensors:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_for("cifar_resnet8", _fresh())
    return dict(model.state_dict())


def _fresh() -> Tensors:
    return dict(RESNETS["cifar_resnet8"](width=8).state_dict())


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any, name: str = "w.pt") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: OrderedDict(w),
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": {f"module.{name}": tensor for name, tensor in w.items()}},
        lambda w: {f"_orig_mod.{name}": tensor for name, tensor in w.items()},
        lambda w: {
            name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in w.items()
        },
    ],
)
def test_checkpoints_as_people_save_them(wrap: Callable[[Tensors], Any], file: Callable[[Any], Path]) -> None:
    weights = good()
    model = build_for("cifar_resnet8", read_weights(file(wrap(weights))))
    assert model.state_dict().keys() == weights.keys()
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_not_finite(value: float, dtype: torch.dtype, file: Callable[[Any], Path], refused: Refused) -> None:
    weight = torch.ones(3, dtype=dtype)
    weight[1] = value
    path = file({"a": torch.ones(1), "b": weight})
    with refused("w.pt: b: holds 1 NaN or infinite"):
        read_weights(path)


ODD: dict[str, Callable[[], torch.Tensor]] = {
    "meta": lambda: torch.empty(2, device="meta"),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "complex": lambda: torch.ones(2, dtype=torch.complex64),
    "float8": lambda: torch.ones(2).to(torch.float8_e4m3fn),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_weights(kind: str, file: Callable[[Any], Path], refused: Refused) -> None:
    path = file({"a": torch.ones(1), "odd": ODD[kind]()})
    with refused("odd: is no plain tensor"):
        read_weights(path)


def test_a_shape_expanded_from_one_number(file: Callable[[Any], Path], refused: Refused) -> None:
    path = file({"huge": torch.ones(1).expand(2**20, 2**20)})
    with refused(r"huge: claims the shape \[1048576, 1048576\]"):
        read_weights(path)


def test_a_tensor_larger_than_its_storage(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(1000)}, path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    # The size, a tuple of one number; the storage keeps its true length.
    members["w/data.pkl"] = members["w/data.pkl"].replace(b"M\xe8\x03\x85", b"M\xff\xff\x85")
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    with refused(r"claims the shape \[65535\]|damaged"):
        read_weights(path)


def test_thousands_of_views_of_one_storage(file: Callable[[Any], Path], refused: Refused) -> None:
    base = torch.ones(100_000)
    path = file({f"w{index}": base for index in range(2000)})
    with refused("bytes of weights out of"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({}, "holds a dict, not weights"),
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        (17, "holds a int"),
        ({"a": 1.0}, "is a float, not a tensor"),
        ({"a": {"b": torch.ones(1)}}, "is a dict, not a tensor"),
        ({3: torch.ones(1)}, "not a tensor"),
        ({"a": torch.ones(1), "module.a": torch.ones(1)}, "with and without a prefix"),
        ({"a": torch.ones(1, dtype=torch.int64)}, "none of them weights"),
    ],
)
def test_contents_that_are_no_state_dict(
    content: Any, what: str, file: Callable[[Any], Path], refused: Refused
) -> None:
    path = file(content)
    with refused(what):
        read_weights(path)


class Odd(torch.Tensor):
    pass


def test_a_subclass_of_tensor(file: Callable[[Any], Path], refused: Refused) -> None:
    path = file({"a": torch.ones(2).as_subclass(Odd)})
    with refused("holds Python objects"):
        read_weights(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda w: w.pop("fc.bias"), "fc.bias is missing"),
        (lambda w: w.update(extra=torch.ones(1)), "extra belongs to no layer"),
        (lambda w: w.update({"fc.weight": torch.ones(10, 7)}), r"fc.weight is \[10, 7\], not \[10, 32\]"),
        (lambda w: w.update({"fc.weight": torch.ones(3, 32)}), "fc.weight is|fc.bias is"),
        (lambda w: w.update({"conv1.weight": w["conv1.weight"].int()}), "conv1.weight holds torch.int32"),
        (
            lambda w: w.update({"fc.weight": torch.ones(99_999, 0), "fc.bias": torch.ones(99_999)}),
            "fc.weight is",
        ),
        (lambda w: w.update({"conv1.weight": torch.ones(2**20, 3, 1, 1)}), "conv1.weight is"),
        (lambda w: w.clear(), "is missing"),
    ],
)
def test_weights_of_another_architecture(
    change: Callable[[Tensors], Any], what: str, refused: Refused
) -> None:
    weights = good()
    change(weights)
    with refused(what):
        build_for("cifar_resnet8", weights)


def test_another_architecture(refused: Refused) -> None:
    with refused("does not fit the weights: .* and .* more"):
        build_for("resnet18", good())


@pytest.mark.parametrize(("name", "hint"), [("resnet81", "resnet18"), ("???", "Choose one of")])
def test_an_unknown_architecture(name: str, hint: str, refused: Refused) -> None:
    with refused(f"is not one that Paredown knows. .*{hint}"):
        build_for(name, {})


@pytest.mark.parametrize("classes", [0, 1])
def test_too_few_classes(classes: int, refused: Refused) -> None:
    weights = good() | {"fc.weight": torch.ones(classes, 32), "fc.bias": torch.ones(classes)}
    with refused("does not fit the weights"):
        build_for("cifar_resnet8", weights)


# --- zip and safetensors ---------------------------------------------------------------------------


def test_a_compressed_bomb(tmp_path: Path, refused: Refused) -> None:
    torch.save(good(), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr("plain/data/999", bytes(200_000_000))
    with refused("declares 2.*bytes of content in"):
        read_weights(tmp_path / "bomb.pt")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_cut_off(keep: float, legacy: bool, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "w.pt"
    torch.save(good(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with refused("damaged, cut off"):
        read_weights(path)


def safetensors_file(path: Path, header: Any, data: bytes = bytes(16), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def _tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"a": _tensor(0, 10**12, [4])}, None),
        ({"a": _tensor(0, 16, [2**40])}, None),
        ({"a": _tensor(0, 16, [2**62, 2**62])}, None),
        ({"a": _tensor(-16, 0, [4])}, None),
        ({"a": _tensor(0, 16, [-4])}, None),
        ({"a": _tensor(0, 16, [4]), "b": _tensor(8, 16, [2])}, None),
        ({"a": _tensor(8, 16, [2])}, None),
        ({"a": _tensor(0, 16, [4], "OBJECT")}, None),
        ({"a": _tensor(0, 16, [4])}, 2**63),
        ({"a": _tensor(0, 16, [4])}, 90_000_000),
        ({"a": _tensor(0, 16, [4])}, 3),
        (b"{" * 100_000, None),
        (b"{}", None),
        ({"a": _tensor(0, 16, [2], "C64")}, None),
    ],
)
def test_lying_safetensors(header: Any, length: int | None, tmp_path: Path, refused: Refused) -> None:
    path = safetensors_file(tmp_path / "w.safetensors", header, length=length)
    with refused("not a whole .safetensors|none of them weights|no plain tensor"):
        read_weights(path)


@pytest.mark.parametrize("keep", [0, 4, 9, 200, -1])
def test_cut_off_safetensors(keep: int, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(good(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with refused("not a whole .safetensors"):
        read_weights(path)


def test_safetensors_with_nan(tmp_path: Path, refused: Refused) -> None:
    safetensors.torch.save_file({"a": torch.tensor([float("nan")])}, tmp_path / "w.safetensors")
    with refused("holds 1 NaN"):
        read_weights(tmp_path / "w.safetensors")


def test_safetensors_in_the_real_child(tmp_path: Path) -> None:
    safetensors.torch.save_file(good(), tmp_path / "w.safetensors")
    (tmp_path / "kept").mkdir()
    candidate = import_model(tmp_path / "w.safetensors", tmp_path / "kept", architecture="cifar_resnet8")
    assert candidate.spec.classes == 10
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["model.pt2"]


def test_weights_without_a_name(tmp_path: Path) -> None:
    torch.save(good(), tmp_path / "w.pt")
    with pytest.raises(SettingRefused, match="Choose their architecture"):
        import_model(tmp_path / "w.pt", tmp_path)


def test_a_whole_pickle_without_a_name_is_refused_as_what_it_is(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ModelRefused, match="holds Python objects") as caught:
        import_model(tmp_path / "whole.pt", tmp_path)
    assert type(caught.value) is ModelRefused
    assert "torch.export.save(program, 'model.pt2')" in caught.value.fix
