"""How large the exported file is, as it lies on a disk and as it travels."""

import zlib
from collections.abc import Sequence
from pathlib import Path

from workers.base import Artefact, Bench, Measure, Measurement

CHUNK_BYTES = 1 << 20
#: A deflate stream without header or check sum, as inside a zip.
RAW_DEFLATE = -zlib.MAX_WBITS


class Size(Measure):
    """Bytes of the exported file, plain and deflated."""

    title = "Size"
    unit = "B"
    better = "lower"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:  # noqa: ARG002
        return [
            [
                self._measurement("size", artefact.file.stat().st_size),
                self._measurement("size_compressed", deflated_bytes(artefact.file)),
            ]
            for artefact in artefacts
        ]

    def _measurement(self, name: str, size_bytes: int) -> Measurement:
        return Measurement(name=name, value=size_bytes, unit=self.unit, better=self.better)


def deflated_bytes(file: Path) -> int:
    """Bytes of the file inside a zip at the default level; nothing is written."""
    deflate = zlib.compressobj(wbits=RAW_DEFLATE)
    with file.open("rb") as stream:
        total = sum(len(deflate.compress(chunk)) for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""))
    return total + len(deflate.flush())
