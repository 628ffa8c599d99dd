"""The restricted child: looks at one file from a stranger and writes a canonical model from it.

Reads a JSON request from standard input, writes JSON lines to standard output (see `sandbox`). Everything
here may meet hostile data; everything after it opens only what was written here.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.graph.sandbox import leave_network, limit_resources

# Before torch is imported: a process with threads cannot always leave.
_OFFLINE = leave_network() if __name__ == "__main__" else False

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.export import ExportedProgram  # noqa: E402

from workers.base import INPUT_NAME, ImagePreprocessing, ModelSpec, Preprocessing  # noqa: E402
from workers.errors import ModelRefused, ParedownError  # noqa: E402
from workers.graph.architectures import build_for, native_size  # noqa: E402
from workers.graph.archive import Archive, read_archive, trace, write_archive  # noqa: E402
from workers.graph.kinds import Kind, kind_of  # noqa: E402
from workers.graph.modules import to_modules  # noqa: E402
from workers.graph.onnx_file import read_onnx  # noqa: E402
from workers.graph.program import as_written  # noqa: E402
from workers.graph.weights import read_weights  # noqa: E402

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_TENSOR_BYTES = 2 << 30
#: Largest difference of a logit, relative to the largest logit, that rounding explains.
TOLERANCE = 1e-4

_EXPORT = "Export it with a dynamic batch: dynamic_shapes=({0: torch.export.Dim('N')},)."

Logits = Callable[[torch.Tensor], torch.Tensor]


def inspect(request: dict[str, Any], told: Callable[[str], None]) -> dict[str, Any]:
    """Check the file, write `model.pt2` or `model.onnx` into the request's folder, describe it."""
    path, folder = Path(request["path"]), Path(request["folder"])
    told("reading")
    kind = kind_of(path)
    if kind is Kind.ONNX:
        spec, error = _onnx(path, folder / "model.onnx", request, told)
    elif kind is Kind.PROGRAM:
        spec, error = _program(path, folder / "model.pt2", request, told)
    else:
        spec, error = _weights(path, folder / "model.pt2", request, told)
    return {"spec": spec.model_dump(mode="json"), "parity_error": error, "offline": _OFFLINE}


def _program(path: Path, target: Path, request: dict[str, Any], told: Callable[[str], None]) -> Any:
    archive = read_archive(path)
    channels, height, width = _input_shape(archive)
    preprocessing = _preprocessing(request, None, channels, (height, width))
    told("rebuilding")
    original = as_written(archive)
    graph = to_modules(original, preprocessing.shape)
    return _finish(original, graph, target, request, None, preprocessing, told)


def _weights(path: Path, target: Path, request: dict[str, Any], told: Callable[[str], None]) -> Any:
    name = request["architecture"]
    if name is None:
        raise ModelRefused(
            path.name,
            "holds weights only.",
            "Name their architecture with --arch (`paredown architectures` lists them), or export the whole "
            "model: torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2').",
        )
    weights = read_weights(path)
    told("building the architecture")
    original = build_for(name, weights).float()
    channels = next(m.in_channels for m in original.modules() if isinstance(m, nn.Conv2d))
    side = request["size"] or native_size(name) or request["data_size"] or 32
    preprocessing = _preprocessing(request, name, channels, (side, side))
    return _finish(original, original, target, request, name, preprocessing, told)


def _finish(
    original: nn.Module,
    graph: nn.Module,
    target: Path,
    request: dict[str, Any],
    architecture: str | None,
    preprocessing: Preprocessing,
    told: Callable[[str], None],
) -> tuple[ModelSpec, float]:
    """Export, look at sizes before anything runs, write, read back, compare with the original."""
    told("exporting")
    program = trace(graph, preprocessing)
    classes = _check_sizes(program)
    write_archive(program, target)
    told("comparing with the original")
    again = to_modules(as_written(read_archive(target)), preprocessing.shape)
    with torch.no_grad():
        error = _parity(original, again, _samples(request, preprocessing))
    return _spec(request, architecture, classes, preprocessing), error


def _onnx(path: Path, target: Path, request: dict[str, Any], told: Callable[[str], None]) -> Any:
    model, classes, (channels, height, width) = read_onnx(path)
    preprocessing = _preprocessing(request, None, channels, (height, width))
    onnx.save(model, str(target))
    told("running it once")
    samples = _samples(request, preprocessing)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])

        def run(x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.asarray(session.run(None, {INPUT_NAME: x.numpy()})[0]))

        error = _parity(lambda x: torch.cat([run(row[None]) for row in x]), run, samples)
    except Exception as problem:  # ONNX Runtime raises classes of its own, all from Exception
        raise ModelRefused(
            path.name,
            f"does not run in ONNX Runtime on batches of 1 and {len(samples)} ({str(problem)[:200]}).",
            _EXPORT,
        ) from problem
    return _spec(request, None, classes, preprocessing), error


def _input_shape(archive: Archive) -> tuple[int, int, int]:
    module = archive.program["graph_module"]
    names = [
        s["user_input"]["arg"]["as_tensor"]["name"]
        for s in module["signature"]["input_specs"]
        if "user_input" in s
    ]
    meta = module["graph"]["tensor_values"][names[0]]
    sizes = [size.get("as_int") for size in meta["sizes"]]
    if (
        len(sizes) != 4
        or sizes[1] not in (1, 3)
        or not all(isinstance(s, int) and 1 <= s <= 4096 for s in sizes[2:])
    ):
        raise ModelRefused(
            "models/model.json",
            f"takes an input of the shape {sizes} (None: dynamic).",
            "Paredown takes pictures (N, C, H, W) with C = 1 or 3 and fixed H and W.",
        )
    return sizes[1], sizes[2], sizes[3]


def _preprocessing(
    request: dict[str, Any], architecture: str | None, channels: int, size: tuple[int, int]
) -> ImagePreprocessing:
    """What the request says; else ImageNet's for torchvision at its own size, 0-1 pixels otherwise."""
    native = architecture is not None and native_size(architecture) == size[0] and channels == 3
    mean = request["mean"] or (IMAGENET_MEAN if native else (0.0,) * channels)
    std = request["std"] or (IMAGENET_STD if native else (1.0,) * channels)
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ModelRefused(
            "--mean, --std",
            f"have {len(mean)} and {len(std)} values for a model with {channels} input channels.",
            "Give one positive number per channel.",
        )
    resize = round(size[0] * 256 / 224) if native else None
    return ImagePreprocessing(
        channels=channels, height=size[0], width=size[1], resize=resize, mean=mean, std=std
    )


def _check_sizes(program: ExportedProgram) -> int:
    """Number of classes. Sizes are known from tracing without data, so nothing large is ever allocated."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and node.op != "placeholder":
            elements = 1
            for size in value.shape:
                elements *= size if isinstance(size, int) else 2
            if elements * value.element_size() > MAX_TENSOR_BYTES:
                raise ModelRefused(
                    "models/model.json",
                    f"computes a tensor of the shape {list(value.shape)} in {node.name[:80]}.",
                    "Use a smaller input or fewer channels.",
                )
    output = next(node for node in program.graph.nodes if node.op == "output")
    shape = list(output.args[0][0].meta["val"].shape)
    if len(shape) != 2 or isinstance(shape[0], int) or not isinstance(shape[1], int) or shape[1] < 2:
        raise ModelRefused(
            "models/model.json",
            f"returns {shape}, not logits (N, classes) for two classes or more.",
            "Export a module that returns one row of logits per picture.",
        )
    return shape[1]


def _samples(request: dict[str, Any], preprocessing: ImagePreprocessing) -> torch.Tensor:
    """A few real pictures as the model would see them; noise when the request brings none."""
    channels, height, width = preprocessing.shape
    if request["samples"] is None:
        return torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0))
    pictures = (
        torch.from_numpy(np.load(request["samples"], allow_pickle=False)).permute(0, 3, 1, 2).float() / 255
    )
    pictures = nn.functional.interpolate(pictures, (height, width), mode="bilinear", antialias=True)
    if pictures.shape[1] != channels:
        pictures = pictures.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    return (pictures - mean) / torch.tensor(preprocessing.std)[:, None, None]


def _parity(original: Logits, rebuilt: Logits, samples: torch.Tensor) -> float:
    """Largest difference of a logit relative to the largest logit. Raises ModelRefused above TOLERANCE."""
    expected, got = original(samples), rebuilt(samples)
    error = float((expected - got).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not error <= TOLERANCE:  # also when it is NaN
        raise ModelRefused(
            "the model",
            f"gives logits that differ by {error:.1%} after it was rebuilt (on {len(samples)} samples).",
            "Please report the architecture; it uses an operation that Paredown reads wrongly.",
        )
    return error


def _spec(
    request: dict[str, Any], architecture: str | None, classes: int, preprocessing: Preprocessing
) -> ModelSpec:
    return ModelSpec(
        name=request["name"],
        sha256=request["sha256"],
        architecture=architecture,
        classes=classes,
        preprocessing=preprocessing,
    )


def main() -> None:
    request = json.load(sys.stdin)
    replies = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not be taken for a reply

    def say(**message: Any) -> None:
        print(json.dumps(message), file=replies, flush=True)

    limit_resources(memory_bytes=request["memory_bytes"])
    try:
        say(reply=inspect(request, lambda step: say(step=step)))
    except ParedownError as error:
        say(error=[type(error).__name__, error.where, error.what, error.fix])
    except Exception as error:  # noqa: BLE001 - a stranger's program may fail in any way while it is traced
        what = f"cannot be carried out as a model ({type(error).__name__}: {str(error)[:200]})."
        say(error=["ModelRefused", request["name"], what, _EXPORT])


if __name__ == "__main__":
    main()
