"""Zips made to harm: each is refused with where, what and what to do, and nothing is written or inflated."""

import contextlib
import stat
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.data import Dataset
from workers.errors import DatasetRefused

Write = Callable[[str, Mapping[str, bytes]], Path]
Open = Callable[..., Dataset]


@contextmanager
def refused(tmp_path: Path, what: str, *, seconds: float = 5, peak_bytes: int = 2**23) -> Iterator[None]:
    """The block is refused soon, in little memory, and no file appears."""
    before, start = set(tmp_path.rglob("*")), time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(DatasetRefused, match=what) as caught:
            yield
        assert tracemalloc.get_traced_memory()[1] < peak_bytes
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < seconds
    assert caught.value.where
    assert caught.value.fix
    assert {path for path in tmp_path.rglob("*") if path.is_file()} <= before


@pytest.mark.parametrize(
    "name", ["../marker.png", "cat/../../marker.png", "/tmp/marker.png", "C:\\marker.png", "..\\m.png"]
)
def test_names_that_leave_the_archive(
    name: str, tmp_path: Path, archive: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    source = archive("x.zip", two_classes | {name: two_classes["cat/0.png"]})
    with refused(tmp_path, "points outside"):
        load(source)
    assert not (tmp_path.parent / "marker.png").exists()


def test_symbolic_links(tmp_path: Path, archive: Write, load: Open, two_classes: dict[str, bytes]) -> None:
    source = archive("x.zip", two_classes)
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "a") as target:
        target.writestr(link, "/etc/passwd")
    with refused(tmp_path, "symbolic link"):
        load(source)


def test_a_bomb_that_declares_its_size(tmp_path: Path, archive: Write, load: Open) -> None:
    source = archive("x.zip", {f"{name}/0.bmp": bytes(50_000_000) for name in "ab"})
    assert source.stat().st_size < 200_000
    with refused(tmp_path, "times its size; 100 are allowed"):
        load(source)
    with refused(tmp_path, "unpacks to 100,000,000 bytes; 1,000 are allowed"):
        load(source, total_bytes=1000)


def test_a_bomb_that_hides_its_size(tmp_path: Path, archive: Write, load: Open) -> None:
    """Both headers say 1,000 bytes and 100,000,000 come: no more than promised is inflated."""
    source = archive("x.zip", {"a/0.bmp": bytes(100_000_000), "b/0.bmp": b"x"})
    data = source.read_bytes().replace(struct.pack("<L", 100_000_000), struct.pack("<L", 1000))
    source.write_bytes(data)
    with refused(tmp_path, "damaged"):
        load(source)


def test_members_that_share_their_bytes(
    tmp_path: Path, archive: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    source = archive("x.zip", two_classes)
    with zipfile.ZipFile(source, "a") as target:
        first = target.infolist()[0]
        for index in range(100):
            twin = zipfile.ZipInfo(f"cat/twin{index}.png")
            for field in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                setattr(twin, field, getattr(first, field))
            target.filelist.append(twin)
        target.writestr("dog/last.png", b"x")
    with refused(tmp_path, "overlap"):
        load(source)


def test_more_files_than_allowed_are_counted_before_they_are_listed(
    tmp_path: Path, archive: Write, load: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = archive("x.zip", {f"a/{index}": b"" for index in range(3000)})
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with refused(tmp_path, "holds 3,000 files; 2,999 are allowed"):
        load(source, members=2999)


def test_the_old_size_of_the_table_of_contents_may_lie_where_zip64_counts(
    tmp_path: Path, archive: Write, load: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)  # so that zipfile writes the zip64 record
    source = archive("x.zip", {f"a/{index}": b"" for index in range(3000)})
    data = bytearray(source.read_bytes())
    data[-10:-6] = struct.pack("<L", 46)
    source.write_bytes(data)
    with zipfile.ZipFile(source) as target:
        assert len(target.infolist()) == 3000, "the proof of concept itself must be read by zipfile"
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with refused(tmp_path, "holds 3,000 files; 2,999 are allowed"):
        load(source, members=2999)


def test_compression_that_cannot_be_inflated_in_pieces(
    tmp_path: Path, load: Open, two_classes: dict[str, bytes]
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as target:
        for name, data in two_classes.items():
            target.writestr(name, data)
    with refused(tmp_path, "compressed by method 14"):
        load(tmp_path / "x.zip")


def test_encrypted_members(tmp_path: Path, archive: Write, load: Open, two_classes: dict[str, bytes]) -> None:
    source = archive("x.zip", two_classes)
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(data)
    with refused(tmp_path, "encrypted"):
        load(source)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_zip_cut_short(
    share: float, tmp_path: Path, archive: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    source = archive("x.zip", two_classes)
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])
    with refused(tmp_path, "empty|damaged or cut short"):
        load(source)


def test_a_damaged_member(tmp_path: Path, archive: Write, load: Open, two_classes: dict[str, bytes]) -> None:
    source = archive("x.zip", two_classes)
    data = bytearray(source.read_bytes())
    data[60:70] = bytes(10)
    source.write_bytes(data)
    with refused(tmp_path, "damaged"):
        load(source)


@given(changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_may_be_wrong(
    changes: list[tuple[int, int]], archive: Write, load: Open, noise: Callable[..., bytes]
) -> None:
    source = archive(
        "x.zip", {f"{name}/{index}.png": noise(index, 2, 2) for name in "ab" for index in range(2)}
    )
    data = bytearray(source.read_bytes())
    for place, value in changes:
        data[-1 - place % len(data)] = value  # the table of contents is at the end
    source.write_bytes(data)
    with contextlib.suppress(DatasetRefused):
        assert load(source).classes


def test_zips_in_zips_are_not_opened(archive: Write, load: Open, two_classes: dict[str, bytes]) -> None:
    inner = archive("inner.zip", two_classes).read_bytes()
    dataset = load(archive("x.zip", two_classes | {"cat/inner.zip": inner}))
    assert len(dataset.labels) == 20
    assert "Ignored 1 file of another kind: cat/inner.zip." in dataset.problems


def test_nothing_is_extracted(
    tmp_path: Path, archive: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    load(archive("x.zip", two_classes))
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x.zip"]
    assert [path.parent.name for path in written] == ["inspections"]


@pytest.mark.parametrize("name", ["x.zip", "x.npz", "x.png", "pictures"])
def test_another_file_with_the_name_of_a_dataset(name: str, tmp_path: Path, load: Open) -> None:
    (tmp_path / name).write_bytes(b"\x7fELF and more")
    with refused(tmp_path, "neither a zip nor an .npz; it begins with"):
        load(tmp_path / name)


def test_a_path_that_is_not_there(tmp_path: Path, load: Open) -> None:
    with refused(
        tmp_path, "no file or folder of this name.*Give a folder, a .zip, an .npz, or one of sample"
    ):
        load(tmp_path / "missing.zip")
