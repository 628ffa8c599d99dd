"""The one door: what comes in, what is kept, and what a kept file says about where it was made."""

import getpass
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.workers.graph.conftest import Refused, Remake
from tests.workers.graph.networks import Residual, trained
from workers.errors import ModelRefused
from workers.graph import importing
from workers.graph.importing import file_sha256, import_model, open_model
from workers.graph.inspection import inspect
from workers.graph.resnets import RESNETS

Export = Callable[..., Path]
RequestFor = Callable[..., dict[str, Any]]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


def test_a_program_with_real_samples(export: Export, kept: Path) -> None:
    net, steps = trained(Residual), list[str]()
    path = export(net)
    samples = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    candidate = import_model(
        path, kept, mean=(0.5,) * 3, std=(0.2, 0.3, 0.4), samples=samples, told=steps.append
    )
    assert steps == ["reading", "rebuilding", "exporting", "reading it back", "running it once"]
    assert candidate.spec.sha256 == file_sha256(path)
    assert (candidate.spec.classes, candidate.spec.name) == (4, "uploaded.pt2")
    assert candidate.spec.preprocessing.std == (0.2, 0.3, 0.4)
    assert candidate.graph
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(candidate.graph(x), net(x))
    again = open_model(kept / "model.pt2", candidate.spec)
    assert again.graph
    assert torch.equal(again.graph(x), net(x))


def test_what_is_kept_says_nothing_of_its_origin(export: Export, request_for: RequestFor) -> None:
    uploaded = export(trained(Residual))
    secrets = ["Residual", "networks.py", "site-packages", "Traceback", 'File \\"', 'stack_trace": "File']
    secrets += [str(Path.home()), str(Path(__file__).parents[3]), str(uploaded.parent), "uploaded"]
    if len(getpass.getuser()) > 4:  # "root" is part of honest words
        secrets.append(getpass.getuser())
    assert b"site-packages" in uploaded.read_bytes()  # a plain export tells
    request = request_for(uploaded)
    inspect(request, lambda _: None)
    kept = Path(request["folder"]) / "model.pt2"
    content = kept.read_bytes()
    assert [secret for secret in secrets if secret.encode() in content] == []
    with zipfile.ZipFile(kept) as file:
        members = {info.filename.partition("/")[2]: file.read(info) for info in file.infolist()}
    assert members["data/sample_inputs/model.pt"] == b""
    pickles = [name for name, data in members.items() if data[:1] == b"\x80" or b"data.pkl" in data]
    assert [name for name in pickles if not name.startswith("data/weights/weight_")] == []


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"mean": (0.5,)}, "3 channels, but mean"),
        ({"std": (1.0, 1.0, 0.0)}, "greater than 0"),
        ({"architecture": "cifar_resnet8", "size": -3}, "greater than or equal to 1"),
        ({"architecture": "cifar_resnet8", "size": 100_000}, "less than or equal to 4096"),
    ],
)
def test_settings_that_do_not_fit(
    settings: dict[str, Any],
    what: str,
    export: Export,
    tmp_path: Path,
    refused: Refused,
    request_for: RequestFor,
) -> None:
    if "architecture" in settings:
        path = tmp_path / "w.pt"
        torch.save(RESNETS["cifar_resnet8"]().state_dict(), path)
    else:
        path = export(trained(Residual))
    request = request_for(path, **settings)
    with refused(f"size, mean, std: .*{what}"):
        inspect(request, lambda _: None)


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_suffix(".fifo"))
    path.symlink_to(path.with_suffix(".fifo"))


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    "make", [_directory, _pipe, _link_to_a_pipe, _link_to_itself, _link_to_a_device, _nothing]
)
def test_paths_that_are_no_files(
    make: Callable[[Path], None], tmp_path: Path, kept: Path, refused: Refused
) -> None:
    make(tmp_path / "m.pt2")
    with refused("is not a file that can be read"):
        import_model(tmp_path / "m.pt2", kept)


def test_a_name_longer_than_the_system_takes(tmp_path: Path, kept: Path, refused: Refused) -> None:
    with refused("is not a file that can be read"):
        import_model(tmp_path / ("m" * 5000), kept)


@pytest.mark.parametrize(("content", "what"), [(b"", "is empty"), (b"\x00\x01garbage", "not a model file")])
def test_files_that_are_no_models(
    content: bytes, what: str, tmp_path: Path, kept: Path, refused: Refused
) -> None:
    (tmp_path / "m.pt2").write_bytes(content)
    with refused(what):
        import_model(tmp_path / "m.pt2", kept)
    assert [*kept.iterdir()] == []


# --- the child is not trusted ----------------------------------------------------------------------

SPEC = {
    "name": "x",
    "sha256": "x",
    "architecture": None,
    "classes": 3,
    "preprocessing": {"channels": 3, "height": 8, "width": 8, "mean": [0, 0, 0], "std": [1, 1, 1]},
}


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], object], Any], None]:
    """Replace the child by a function of its folder and its reply."""

    def put(act: Callable[[Path], object], reply: Any) -> None:
        def child(_: str, request: dict[str, Any], **__: Any) -> Any:
            act(Path(request["folder"]))
            return reply

        monkeypatch.setattr(importing, "run_restricted", child)

    return put


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        ({}, "described wrongly"),
        ({"spec": 3}, "described wrongly"),
        ({"spec": {"classes": 1}}, "described wrongly"),
    ],
)
def test_a_reply_without_sense(
    reply: Any, what: str, answer: Any, remake: Remake, kept: Path, refused: Refused
) -> None:
    path = remake()
    answer(lambda folder: (folder / "model.pt2").write_bytes(path.read_bytes()), reply)
    with refused(what):
        import_model(path, kept)
    assert [*kept.iterdir()] == []


def test_no_file_or_a_link(answer: Any, remake: Remake, kept: Path, refused: Refused) -> None:
    path = remake()
    answer(lambda _: None, {"spec": SPEC})
    with refused("became 0 files"):
        import_model(path, kept)
    answer(lambda folder: (folder / "model.pt2").symlink_to(path), {"spec": SPEC})
    with refused("not one"):
        import_model(path, kept)
    assert [*kept.iterdir()] == []


def test_the_parent_checks_what_the_child_wrote(
    answer: Any, remake: Remake, kept: Path, refused: Refused
) -> None:
    hostile = remake({"data/weights/model.pt": b"x"})
    answer(lambda folder: (folder / "model.pt2").write_bytes(hostile.read_bytes()), {"spec": SPEC})
    with refused("as a pickle"):
        import_model(hostile, kept)
    answer(lambda folder: (folder / "model.onnx").write_bytes(b"\x08\x07garbage"), {"spec": SPEC})
    with refused("ONNX"):
        import_model(hostile, kept)
    assert [*kept.iterdir()] == []


def test_the_child_cannot_choose_the_models_identity(answer: Any, remake: Remake, kept: Path) -> None:
    path = remake()
    answer(lambda folder: (folder / "model.pt2").write_bytes(path.read_bytes()), {"spec": SPEC})
    spec = import_model(path, kept).spec
    assert (spec.name, spec.sha256) == (path.name, file_sha256(path))


def test_a_file_that_changes_while_it_is_read(answer: Any, remake: Remake, kept: Path) -> None:
    path = remake()
    answer(lambda _: path.write_bytes(b"something else"), {"spec": SPEC})
    with pytest.raises(ModelRefused, match="changed while it was read"):
        import_model(path, kept)
    assert [*kept.iterdir()] == []
