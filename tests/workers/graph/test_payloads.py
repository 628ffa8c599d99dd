"""Files that run code when they are opened as usual. First shown to work, then opened here: nothing runs."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.graph.conftest import CONSTANTS, MODEL, WEIGHTS, Refused, Remake
from workers.errors import ModelRefused
from workers.graph.importing import import_model
from workers.graph.inspection import inspect

RequestFor = Callable[..., dict[str, Any]]


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def saved(payload: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _entry(table: Any, record: str) -> dict[str, Any]:
    entry = dict(next(iter(table["config"].values())))
    return entry | {"path_name": record, "use_pickle": True}


def whole_module(path: Path, marker: Path, _: dict[str, bytes]) -> None:
    path.write_bytes(saved({"model": Payload(marker)}))


def whole_module_in_the_old_format(path: Path, marker: Path, _: dict[str, bytes]) -> None:
    path.write_bytes(saved({"model": Payload(marker)}, zipped=False))


def bare_pickle(path: Path, marker: Path, _: dict[str, bytes]) -> None:
    path.write_bytes(pickle.dumps(Payload(marker)))


def hidden_in_a_state_dict(path: Path, marker: Path, _: dict[str, bytes]) -> None:
    path.write_bytes(saved({"fc.weight": torch.zeros(2, 2), "fc.bias": Payload(marker)}))


def pickled_samples(path: Path, marker: Path, honest: dict[str, bytes]) -> None:
    _zip(path, honest | {"data/sample_inputs/model.pt": saved(Payload(marker))})


def pickled_weights(path: Path, marker: Path, honest: dict[str, bytes]) -> None:
    table = json.loads(honest[WEIGHTS])
    table["config"]["conv.weight"] = _entry(table, "weight_0")
    members = {WEIGHTS: json.dumps(table).encode(), "data/weights/weight_0": saved(Payload(marker))}
    _zip(path, honest | members)


def pickled_weights_of_an_older_torch(path: Path, marker: Path, honest: dict[str, bytes]) -> None:
    members = {**honest, "data/weights/model.pt": saved(Payload(marker))}
    del members[WEIGHTS]
    _zip(path, members)


def pickled_constant(path: Path, marker: Path, honest: dict[str, bytes]) -> None:
    table = json.loads(honest[CONSTANTS])
    table["config"]["extra"] = _entry(table, "tensor_9")
    _zip(
        path,
        honest | {CONSTANTS: json.dumps(table).encode(), "data/constants/tensor_9": saved(Payload(marker))},
    )


def opaque_constant(path: Path, marker: Path, honest: dict[str, bytes]) -> None:
    table = json.loads(honest[CONSTANTS])
    table["config"]["extra"] = _entry(table, "opaque_obj_0")
    members = {
        CONSTANTS: json.dumps(table).encode(),
        "data/constants/opaque_obj_0": pickle.dumps(Payload(marker)),
    }
    _zip(path, honest | members)


def evaluated_expression(path: Path, marker: Path, honest: dict[str, bytes]) -> None:
    program = json.loads(honest[MODEL])
    expression = f"__import__('os').system('touch {marker}')"
    for value in program["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = expression
    _zip(path, honest | {MODEL: json.dumps(program).encode()})


def _zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(f"archive/{name}", data)


#: payload -> what is said about it; None where the file is taken and the payload left behind.
WEIGHTS_FILES = {
    whole_module: "holds Python objects",
    whole_module_in_the_old_format: "holds Python objects",
    bare_pickle: "holds Python objects|damaged",
    hidden_in_a_state_dict: "holds Python objects",
}
PROGRAMS = {
    pickled_samples: None,
    pickled_weights: "stored as a pickle",
    pickled_weights_of_an_older_torch: "as a pickle",
    pickled_constant: "stored as a pickle",
    opaque_constant: "does not belong",
    evaluated_expression: "not arithmetic",
}
_NAIVE = """
import sys, torch
for path in sys.argv[1:]:
    try:
        torch.export.load(path) if path.endswith("pt2") else torch.load(path, weights_only=False)
    except Exception as error:
        print(path, repr(error)[:200])
"""


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory, honest: dict[str, bytes]) -> Path:
    """A folder of files, each of which has run its payload in plain torch."""
    folder = tmp_path_factory.mktemp("armed")
    files = []
    for write in (*WEIGHTS_FILES, *PROGRAMS):
        path = folder / f"{write.__name__}.{'pt2' if write in PROGRAMS else 'pt'}"
        write(path, folder / f"{write.__name__}.ran", honest)
        files.append(path)
    naive = subprocess.run(
        [sys.executable, "-c", _NAIVE, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    markers = [folder / f"{write.__name__}.ran" for write in (*WEIGHTS_FILES, *PROGRAMS)]
    assert [marker.stem for marker in markers if not marker.exists()] == [], naive.stdout
    for marker in markers:
        marker.unlink()
    return folder


@pytest.mark.parametrize("write", WEIGHTS_FILES)
def test_pickled_code(write: Any, armed: Path, refused: Refused, request_for: RequestFor) -> None:
    path = armed / f"{write.__name__}.pt"
    request = request_for(path, architecture="resnet18")
    with refused(WEIGHTS_FILES[write]):
        inspect(request, lambda _: None)
    assert [*armed.glob("*.ran")] == []


@pytest.mark.parametrize("write", PROGRAMS)
def test_programs(write: Any, armed: Path, tmp_path: Path, refused: Refused, request_for: RequestFor) -> None:
    path, what = armed / f"{write.__name__}.pt2", PROGRAMS[write]
    if what is not None:
        request = request_for(path)
        with refused(what):
            inspect(request, lambda _: None)
    else:
        import_model(path, tmp_path)
        with zipfile.ZipFile(tmp_path / "model.pt2") as file:
            assert [info.file_size for info in file.infolist() if "sample_inputs" in info.filename] == [0]
    assert [*armed.glob("*.ran")] == []


def test_whole_module_in_the_real_child(armed: Path, tmp_path: Path, refused: Refused) -> None:
    target = tmp_path / "kept"
    target.mkdir()
    with refused(r"torch.export.save\(program, 'model.pt2'\)"):
        import_model(armed / "whole_module.pt", target, architecture="resnet18")
    assert [*target.iterdir()] == []
    assert [*armed.glob("*.ran")] == []


def test_a_name_that_would_become_code(tmp_path: Path, remake: Remake, request_for: RequestFor) -> None:
    """torch.fx writes names into Python source; plain torch.fx runs this one."""
    marker = tmp_path / "ran"
    name = f'a" + str(getattr(__import__("os"), "system")("touch {marker}")) + "'
    graph = torch.fx.Graph()
    graph.output(graph.create_node("get_attr", name))
    root = torch.nn.Module()
    setattr(root, name, torch.zeros(1))
    with pytest.raises(AttributeError):
        torch.fx.GraphModule(root, graph)()
    assert marker.exists()
    marker.unlink()

    def rename(table: Any) -> None:
        table["config"][name] = table["config"].pop("conv.weight")

    with pytest.raises(ModelRefused, match="has a parameter named"):
        inspect(request_for(remake(edit=rename, of=WEIGHTS)), lambda _: None)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript(tmp_path: Path, refused: Refused, request_for: RequestFor) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    request = request_for(path, architecture="resnet18")
    with refused("is a TorchScript file"):
        inspect(request, lambda _: None)


def test_tar_of_the_first_torch(tmp_path: Path, refused: Refused, request_for: RequestFor) -> None:
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Payload(tmp_path / "ran"))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    request = request_for(path, architecture="resnet18")
    with refused("is not a model file that Paredown knows"):
        inspect(request, lambda _: None)
    assert not (tmp_path / "ran").exists()
