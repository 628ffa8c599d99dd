"""What kind of model file this is, by its content; names lie."""

import enum
import zipfile
from pathlib import Path

from workers.errors import ModelRefused


class Kind(enum.Enum):
    PROGRAM = ".pt2"
    WEIGHTS = "weights"
    ONNX = ".onnx"


def kind_of(path: Path) -> Kind:
    """Raises ModelRefused when it is none that Paredown takes."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ModelRefused(path.name, "is empty.", "Upload the file again.")
    if start.startswith(b"PK"):
        return _zip_kind(path)
    # A pickle of any protocol, or the length and the brace of a safetensors header.
    if start[0] == 0x80 or (start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30):
        return Kind.WEIGHTS
    if path.suffix == ".safetensors":
        return Kind.WEIGHTS
    # ONNX is a bare protobuf: field 1 (ir_version) or 7/8 comes first.
    if path.suffix == ".onnx" or start[0] == 0x08:
        return Kind.ONNX
    raise ModelRefused(
        path.name,
        f"is not a model file that Paredown knows (it starts with {start[:8]!r}).",
        "Upload a .pt2, a .pt, .pth or .safetensors with its architecture's name, or an .onnx.",
    )


def _zip_kind(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            start = min((info.header_offset for info in file.infolist()), default=0)
        if start != 0:  # what was found is an archive inside the remains of another
            raise zipfile.BadZipFile(f"{start:,} bytes before its first member")
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise ModelRefused(
            path.name, f"is damaged or cut off ({error}).", "Save and upload it again."
        ) from error
    if any("models/" in name and name.endswith(".json") for name in names):
        return Kind.PROGRAM
    if any(name.endswith("data.pkl") for name in names):
        return Kind.WEIGHTS
    if any("serialized_exported_program" in name for name in names):
        raise ModelRefused(
            path.name,
            "was saved by an older torch.",
            "Load it there and save it again with torch 2.9 or newer: torch.export.save(program, 'm.pt2').",
        )
    raise ModelRefused(path.name, "is a zip, but not a model.", "Bring data as a dataset.")
