"""The store of files by content."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.artifacts import Artifacts


def test_the_same_content_is_kept_once_under_its_hash(tmp_path: Path) -> None:
    store = Artifacts(tmp_path / "store")
    file = tmp_path / "a.bin"
    file.write_bytes(b"content" * 1000)
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(store.add, [file] * 32))
    (sha256,) = names
    assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert store.path(sha256).read_bytes() == file.read_bytes()
    assert [path for path in store.folder.rglob("*") if path.is_file()] == [store.path(sha256)]


@pytest.mark.parametrize("name", ["0" * 64, "../../etc/passwd", "", "A" * 64])
def test_what_is_not_there_or_no_hash_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyError):
        Artifacts(tmp_path).path(name)
