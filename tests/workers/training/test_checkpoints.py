import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.arrays import ArrayData, context, easy_data, small_net
from workers.training import checkpoints
from workers.training.settings import TrainingSettings

CPU = torch.device("cpu")
KEY = bytes(range(32))
STATE = {"weights": torch.arange(100.0), "points": [{"accuracy": 0.5}]}


def test_comes_back_as_saved(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, KEY, {"weights": torch.zeros(1)})
    checkpoints.save(tmp_path, KEY, STATE)
    loaded = checkpoints.load(tmp_path, KEY, CPU)
    assert loaded is not None
    assert torch.equal(loaded["weights"], torch.arange(100.0))
    assert loaded["points"] == [{"accuracy": 0.5}]
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.FILE_NAME]


def test_another_key_or_none_at_all_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path, KEY, CPU) is None
    checkpoints.save(tmp_path, KEY, STATE)
    assert checkpoints.load(tmp_path, bytes(32), CPU) is None


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:0],
        lambda content: content[:20],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: flip(content, 5),
        lambda content: flip(content, content.index(torch.arange(100.0).numpy().tobytes()) + 40),
        lambda content: np.random.default_rng(0).bytes(len(content)),
    ],
)
def test_any_damage_means_no_checkpoint(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    checkpoints.save(tmp_path, KEY, STATE)
    file = tmp_path / checkpoints.FILE_NAME
    file.write_bytes(damage(file.read_bytes()))
    assert checkpoints.load(tmp_path, KEY, CPU) is None


def test_death_while_writing_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, KEY, STATE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(tmp_path, KEY, {"weights": torch.zeros(100)})
    loaded = checkpoints.load(tmp_path, KEY, CPU)
    assert loaded is not None
    assert torch.equal(loaded["weights"], torch.arange(100.0))


def test_bytes_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may otherwise leave the new name on an empty file."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(file: int) -> None:
        calls.append("fsync")
        fsync(file)

    def watched_replace(path: Path, to: Path) -> Path:
        calls.append("replace")
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    checkpoints.save(tmp_path, KEY, STATE)
    assert calls == ["fsync", "replace", "fsync"]


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / checkpoints.FILE_NAME
    torch.save(Payload(marker), file)
    hostile = file.read_bytes()
    file.write_bytes(hashlib.sha256(KEY + hostile).digest() + hostile)
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load(tmp_path, KEY, CPU)
    assert not marker.exists()


def test_fingerprint_follows_what_decides_the_outcome(tmp_path: Path) -> None:
    def key(
        settings: TrainingSettings, seed: int = 0, weight: float = 0.0, data: ArrayData | None = None
    ) -> bytes:
        net = small_net()
        with torch.no_grad():
            next(net.parameters()).view(-1)[0] += weight
        return checkpoints.fingerprint(net, settings, context(tmp_path, seed=seed, data=data))

    base = TrainingSettings()
    same = [key(base), key(TrainingSettings(epochs=5))]
    others = [
        key(TrainingSettings(epochs=6)),
        key(TrainingSettings(optimizer="adamw")),
        key(base, seed=1),
        key(base, weight=1.0),
        key(base, data=easy_data(train=63)),
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 1 + len(others)
