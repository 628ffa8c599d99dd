"""Arrays made to harm, with a payload that is shown to work, and arrays saved by mistake."""

import contextlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.data import Dataset
from workers.errors import DatasetRefused

Open = Callable[..., Dataset]

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
LABELS = np.arange(12) % 3


class Payload:
    """Unpickled, it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def refuse(tmp_path: Path, load: Open) -> Callable[..., DatasetRefused]:
    """Save arrays, expect a refusal that says ``what``, and return it."""

    def call(what: str, **arrays: Any) -> DatasetRefused:
        everything: dict[str, Any] = {"images": IMAGES, "labels": LABELS} | arrays
        np.savez(tmp_path / "x.npz", **everything)
        with pytest.raises(DatasetRefused, match=what) as caught:
            load(tmp_path / "x.npz")
        assert caught.value.where.startswith("x")
        assert caught.value.fix
        assert not (tmp_path / "cache").exists()
        return caught.value

    return call


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    padded = header.ljust(117) + "\n"
    return (
        b"\x93NUMPY"
        + version
        + len(padded).to_bytes(2 if version[0] == 1 else 4, "little")
        + padded.encode()
        + body
    )


def members(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in parts.items():
            target.writestr(f"{name}.npy", data)
    return path


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("key", ["images", "labels", "classes", "split"])
def test_a_pickled_payload_never_runs(
    key: str, refuse: Callable[..., DatasetRefused], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    payload = np.array([Payload(marker)] * 12, dtype=object)
    refuse("Python objects, which are pickled and could run code", **{key: payload})
    assert not marker.exists()
    np.load(tmp_path / "x.npz", allow_pickle=True)[key]
    assert marker.exists(), "the proof of concept itself must work"


def test_a_field_of_objects_inside_a_record_is_seen(
    refuse: Callable[..., DatasetRefused], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    records = np.array([(1, Payload(marker))] * 12, dtype=[("number", "i8"), ("thing", "O")])
    refuse("Python objects", images=records)
    assert not marker.exists()


def test_a_raw_pickle_under_the_name_of_an_array(tmp_path: Path, load: Open) -> None:
    import pickle

    marker = tmp_path / "marker"
    members(tmp_path / "x.npz", images=pickle.dumps(Payload(marker)), labels=saved(LABELS))
    with pytest.raises(DatasetRefused, match="no numpy array"):
        load(tmp_path / "x.npz")
    assert not marker.exists()


@pytest.mark.parametrize(
    "shape", ["(1000000000000, 4, 4)", "(12, 4, 5)", "(-12, 4, 4)", "(-1, -192)", "(2**62, 4)", "()", "'x'"]
)
def test_headers_that_lie_allocate_nothing(shape: str, tmp_path: Path, load: Open) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    members(tmp_path / "x.npz", images=npy(header, IMAGES.tobytes()), labels=saved(LABELS))
    with pytest.raises(DatasetRefused, match=r"promises|header says|no numpy array"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        npy("(" * 9000),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 4, 4), }"),
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (9, 4, 4), }"),
        npy("__import__('os').system('touch marker')"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (12,), }", bytes(12), b"\x07\x00"),
        npy(" " * 2_000_000, version=b"\x02\x00"),
    ],
    ids=["empty", "cut", "nested", "no samples", "no bytes", "code", "version", "long"],
)
def test_broken_arrays(data: bytes, tmp_path: Path, load: Open) -> None:
    members(tmp_path / "x.npz", images=data, labels=saved(LABELS))
    with pytest.raises(DatasetRefused):
        load(tmp_path / "x.npz")


@given(at=st.integers(0, 127), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_any_byte_of_a_header_may_be_wrong(at: int, value: int, tmp_path: Path, load: Open) -> None:
    data = bytearray(saved(IMAGES))
    data[at] = value
    members(tmp_path / "x.npz", images=bytes(data), labels=saved(LABELS))
    with contextlib.suppress(DatasetRefused):
        assert len(load(tmp_path / "x.npz").labels) == 12


def test_an_array_cut_short(tmp_path: Path, load: Open) -> None:
    members(tmp_path / "x.npz", images=saved(IMAGES)[:-5], labels=saved(LABELS))
    with pytest.raises(DatasetRefused, match=r"promises 192 bytes of shape \(12, 4, 4\), and 187 are there"):
        load(tmp_path / "x.npz")


def test_arrays_have_the_limits_of_pictures(tmp_path: Path, load: Open) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(DatasetRefused, match="A picture has 16 pixels; 15 are allowed"):
        load(tmp_path / "x.npz", pixels=15)
    with pytest.raises(DatasetRefused, match="12 entries; 11 are allowed"):
        load(tmp_path / "x.npz", samples=11)


def test_a_compressed_bomb(tmp_path: Path, load: Open) -> None:
    np.savez_compressed(
        tmp_path / "x.npz", images=np.zeros((100_000, 32, 32), np.uint8), labels=np.arange(100_000) % 2
    )
    with pytest.raises(DatasetRefused, match="times its size"):
        load(tmp_path / "x.npz")
    with pytest.raises(DatasetRefused, match="102,400,128 bytes; 1,000,000 are allowed"):
        load(tmp_path / "x.npz", ratio=10_000, array_bytes=1_000_000)


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (IMAGES / 255, "dtype is float64"),
        (IMAGES.astype(np.int64), "dtype is int64"),
        (IMAGES[0], r"shape is \(4, 4\)"),
        (np.zeros((12, 3, 8, 8), np.uint8), r"shape is \(12, 3, 8, 8\).*images.transpose\(0, 2, 3, 1\)"),
        (np.zeros((12, 8, 8, 2), np.uint8), r"shape is \(12, 8, 8, 2\)"),
        (np.zeros((12, 0, 8), np.uint8), r"shape is \(12, 0, 8\)"),
        (IMAGES[:11], "11 images and 12 labels"),
    ],
)
def test_images_that_are_none(images: np.ndarray, what: str, refuse: Callable[..., DatasetRefused]) -> None:
    refuse(what, images=images)


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (LABELS / 1, "dtype is float64"),
        (np.where(LABELS, np.nan, 1.0), "dtype is float64, with NaN"),
        (LABELS > 0, "dtype is bool"),
        (LABELS.astype(str), "dtype is <U"),
        (LABELS - 1, "Label -1 is out of range"),
        (LABELS + 10**6, "Label 1000000 is out of range; 100,000 classes are allowed"),
        (np.full(12, 2**64 - 1, np.uint64), "Label 18446744073709551615"),
        (LABELS[:, None], r"shape is \(12, 1\).*reshape"),
        (LABELS[:0], r"shape is \(0,\)"),
        (np.zeros(12, int), "Every sample is of class '0'"),
    ],
)
def test_labels_that_are_none(labels: np.ndarray, what: str, refuse: Callable[..., DatasetRefused]) -> None:
    refuse(what, labels=labels)


@pytest.mark.parametrize(
    ("classes", "what"),
    [
        (["a", "b"], "Label 2 is out of range: there are 2 classes"),
        (["a", "b", "b"], "'b' is there twice"),
        (["a", "b", "\x1b[2J"], r"'\\x1b\[2J' is empty, too long or not printable"),
        (["a", "b", ""], "empty"),
        ([b"a", b"b", b"c"], "not a row of strings"),
        ([[1, 2, 3]], "not a row of strings"),
    ],
)
def test_class_names_that_are_none(
    classes: list[object], what: str, refuse: Callable[..., DatasetRefused]
) -> None:
    refuse(what, classes=np.array(classes))


@pytest.mark.parametrize(
    ("split", "what"),
    [
        (["train"] * 11 + ["holdout"], "'holdout' is no split.*train, calibration, validation, test"),
        (["train"] * 11, "11 entries and 12 labels"),
        (["test"] * 12, "test but no train split"),
    ],
)
def test_splits_that_are_none(split: list[str], what: str, refuse: Callable[..., DatasetRefused]) -> None:
    refuse(what, split=np.array(split))


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_an_array_is_missing(missing: str, tmp_path: Path, load: Open) -> None:
    arrays: dict[str, Any] = {name: IMAGES for name in ("images", "labels", "other") if name != missing}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DatasetRefused, match=f"no array '{missing}'"):
        load(tmp_path / "x.npz")
