"""Segments that several tests share; exporting them takes seconds."""

from pathlib import Path

import pytest

from tests.support.staged import export, parts, quantize


@pytest.fixture(scope="session")
def segment_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of `tests.support.staged.parts`, as ONNX."""
    return export(parts(), tmp_path_factory.mktemp("segments"))


@pytest.fixture(scope="session")
def int8_files(segment_files: list[Path]) -> list[Path]:
    return quantize(segment_files, parts(), segment_files[0].parent)
