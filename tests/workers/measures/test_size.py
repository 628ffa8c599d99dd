import zipfile
from pathlib import Path

import numpy as np
import pytest

from workers.base import Artefact, Bench, Candidate, ModelSpec
from workers.measures.size import Size


@pytest.mark.parametrize("length", [0, 1000, 3 << 20])
def test_agrees_with_the_file_system_and_a_real_zip(
    tmp_path: Path, spec: ModelSpec, bench: Bench, length: int
) -> None:
    """Half of the file can be compressed."""
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(length) + np.random.default_rng(0).bytes(length))
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file, "model.onnx")
    ((size, compressed),) = Size().take([Artefact(file, Candidate(spec))], bench)
    assert (size.name, size.value, size.unit, size.better) == ("size", 2 * length, "B", "lower")
    assert (compressed.name, compressed.unit) == ("size_compressed", "B")
    assert compressed.value == archive.getinfo("model.onnx").compress_size
