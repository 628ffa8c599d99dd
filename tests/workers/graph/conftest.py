"""Exports of small networks, archives with one thing changed, and the check that a file is refused."""

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from workers.errors import ModelRefused
from workers.graph.inspection import inspect

Export = Callable[..., Path]
Remake = Callable[..., Path]
Inspect = Callable[[Path], dict[str, Any]]
Refused = Callable[[str], AbstractContextManager[None]]
MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Write a `.pt2` as a user would, with plain torch: samples, stack traces and all."""

    def write(
        net: nn.Module,
        shape: tuple[int, ...] = (3, 16, 16),
        *,
        batch: int = 2,
        dynamic: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Path:
        shapes = ({0: torch.export.Dim("N")},) if dynamic else None
        program = torch.export.export(net, (torch.rand(batch, *shape, dtype=dtype),), dynamic_shapes=shapes)
        path = tmp_path / "uploaded.pt2"
        torch.export.save(program, path)
        return path

    return write


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3)) * self.scale + torch.tensor([1.0, 2.0, 3.0, 4.0])
        return self.fc(x.view(x.shape[0] * 1, 4))  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def honest() -> dict[str, bytes]:
    """Members of an honest archive, below its top folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _Tiny().eval()
    program = torch.export.export(
        net, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("N")},)
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as file:
        return {info.filename.partition("/")[2]: file.read(info) for info in file.infolist()}


@pytest.fixture
def remake(tmp_path: Path, honest: dict[str, bytes]) -> Remake:
    """The honest archive with members replaced (None: removed) or JSON members edited in place."""

    def write(
        members: Mapping[str, bytes | None] | None = None,
        *,
        edit: Callable[[Any], None] | None = None,
        of: str = MODEL,
        name: str = "hostile.pt2",
        method: int = zipfile.ZIP_STORED,
    ) -> Path:
        content = {**honest, **(members or {})}
        if edit:
            written = json.loads(honest[of])
            edit(written)
            content[of] = json.dumps(written).encode()
        with zipfile.ZipFile(tmp_path / name, "w", method) as file:
            for member, data in content.items():
                if data is not None:
                    file.writestr(f"archive/{member}", data)
        return tmp_path / name

    return write


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What `import_model` asks the restricted child, with a folder for its answer."""

    def make(path: Path, **changed: Any) -> dict[str, Any]:
        folder = tmp_path / "target"
        folder.mkdir(exist_ok=True)
        request = dict.fromkeys(("architecture", "size", "mean", "std", "samples", "data_size"))
        return (
            request | {"path": str(path), "name": path.name, "sha256": "0", "folder": str(folder)} | changed
        )

    return make


@pytest.fixture
def look(request_for: Callable[..., dict[str, Any]]) -> Inspect:
    """Check a file in this process: only for what can never run."""
    return lambda path: inspect(request_for(path), lambda _: None)


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """The block is refused within 30 s with where, what and what to do, and leaves no file."""

    @contextmanager
    def check(what: str) -> Iterator[None]:
        before, start = {file for file in tmp_path.rglob("*") if file.is_file()}, time.monotonic()
        work = tmp_path / "target"  # the child's own folder; import_model removes it
        with pytest.raises(ModelRefused, match=what) as caught:
            yield
        assert time.monotonic() - start < 30
        assert caught.value.where
        assert caught.value.fix
        assert len(str(caught.value)) < 1200
        now = {file for file in tmp_path.rglob("*") if file.is_file() and work not in file.parents}
        assert now <= before

    return check
