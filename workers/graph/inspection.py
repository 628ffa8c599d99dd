"""The restricted child: looks at one file from a stranger and writes a canonical model from it.

Reads a JSON request from standard input, writes JSON lines to standard output (see `sandbox`). Everything
here may meet hostile data; everything after it opens only what was written here.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.graph.sandbox import leave_network, limit_resources, limit_time

# Before torch is imported: a process with threads cannot always leave.
_OFFLINE = leave_network() if __name__ == "__main__" else False

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.export import ExportedProgram  # noqa: E402

from workers.base import INPUT_NAME, ModelSpec, Preprocessing  # noqa: E402
from workers.errors import ModelRefused, ParedownError, SettingRefused  # noqa: E402
from workers.graph.architectures import build_for, native_size  # noqa: E402
from workers.graph.archive import MODEL, read_archive, trace, write_archive  # noqa: E402
from workers.graph.kinds import Kind, kind_of  # noqa: E402
from workers.graph.modules import to_modules  # noqa: E402
from workers.graph.onnx_file import read_onnx  # noqa: E402
from workers.graph.parity import parity_error  # noqa: E402
from workers.graph.preprocessing import preprocessing_for, samples_for  # noqa: E402
from workers.graph.program import as_written, input_shape  # noqa: E402
from workers.graph.weights import read_weights  # noqa: E402

_EXPORT = "Export it with a dynamic batch: dynamic_shapes=({0: torch.export.Dim('N')},)."
_RUNNING = "running it once"

Tell = Callable[[str], None]


def inspect(request: dict[str, Any], told: Tell) -> dict[str, Any]:
    """Check the file, write `model.pt2` or `model.onnx` into the request's folder, describe it.

    Raises ModelRefused or SomethingMissing; what a stranger's program fails with is one of them, too.
    """
    path, folder = Path(request["path"]), Path(request["folder"])
    told("reading")
    try:
        kind = kind_of(path)
        if kind is Kind.ONNX:
            spec, error = _onnx(path, folder / "model.onnx", request, told)
        elif kind is Kind.PROGRAM:
            spec, error = _program(path, folder / "model.pt2", request, told)
        else:
            spec, error = _weights(path, folder / "model.pt2", request, told)
    except ParedownError:
        raise
    except Exception as problem:  # a stranger's program may fail in any way while it is traced
        what = f"cannot be carried out as a model ({type(problem).__name__}: {str(problem)[:200]})."
        raise ModelRefused(request["name"], what, _EXPORT) from problem
    return {"spec": spec.model_dump(mode="json"), "parity_error": error, "offline": _OFFLINE}


def _program(path: Path, target: Path, request: dict[str, Any], told: Tell) -> tuple[ModelSpec, float]:
    archive = read_archive(path)
    batch, channels, height, width = input_shape(archive)
    preprocessing = preprocessing_for(request, None, channels, (height, width))
    told("rebuilding")
    original = as_written(archive)
    try:
        graph = to_modules(original, preprocessing.shape)
        return _finish(original, graph, target, request, None, preprocessing, told)
    except ParedownError:
        raise
    except Exception as problem:
        if batch is None:
            raise
        raise ModelRefused(MODEL, f"only takes batches of {batch}.", _EXPORT) from problem


def _weights(path: Path, target: Path, request: dict[str, Any], told: Tell) -> tuple[ModelSpec, float]:
    weights = read_weights(path)  # first: a whole pickle is refused as what it is
    name = request["architecture"]
    if name is None:
        raise SettingRefused(
            path.name,
            "holds weights only, and their architecture is not named.",
            "Choose their architecture, or export the whole model: "
            "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2').",
        )
    told("building the architecture")
    original = build_for(name, weights)
    channels = next(m.in_channels for m in original.modules() if isinstance(m, nn.Conv2d))
    side = request["size"] or native_size(name) or request["data_size"] or 32
    preprocessing = preprocessing_for(request, name, channels, (side, side))
    return _finish(original, original, target, request, name, preprocessing, told)


def _finish(
    original: nn.Module,
    graph: nn.Module,
    target: Path,
    request: dict[str, Any],
    architecture: str | None,
    preprocessing: Preprocessing,
    told: Tell,
) -> tuple[ModelSpec, float]:
    """Export, write, read back (which looks at sizes before anything runs), compare with the original."""
    told("exporting")
    program = trace(graph, preprocessing)
    classes = _classes(program)
    write_archive(program, target)
    told("reading it back")
    again = to_modules(as_written(read_archive(target)), preprocessing.shape)
    told(_RUNNING)
    error = parity_error(original, again, samples_for(request, preprocessing), classes)
    return _spec(request, architecture, classes, preprocessing), error


def _onnx(path: Path, target: Path, request: dict[str, Any], told: Tell) -> tuple[ModelSpec, float]:
    model, classes, (channels, height, width) = read_onnx(path)
    preprocessing = preprocessing_for(request, None, channels, (height, width))
    onnx.save(model, str(target))
    told(_RUNNING)
    samples = samples_for(request, preprocessing)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])

        def run(x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.asarray(session.run(None, {INPUT_NAME: x.numpy()})[0]))

        error = parity_error(lambda x: torch.cat([run(row[None]) for row in x]), run, samples, classes)
    except ParedownError:
        raise
    except Exception as problem:  # ONNX Runtime raises classes of its own, all from Exception
        raise ModelRefused(
            path.name,
            f"does not run in ONNX Runtime on batches of 1 and {len(samples)} ({str(problem)[:200]}).",
            "Export it with a dynamic batch: torch.onnx.export(…, dynamic_shapes=({0: Dim('N')},)).",
        ) from problem
    return _spec(request, None, classes, preprocessing), error


def _classes(program: ExportedProgram) -> int:
    """How many classes the output (N, classes) has. Raises ModelRefused for any other output."""
    (outputs,) = next(node for node in program.graph.nodes if node.op == "output").args
    shapes = [list(node.meta["val"].shape) for node in outputs]
    batch, *rest = shapes[-1] or [0]
    if isinstance(batch, int) or len(rest) != 1 or not isinstance(rest[0], int) or rest[0] < 2:
        raise ModelRefused(
            MODEL,
            f"returns {shapes[-1]}, not logits (N, classes) for two classes or more.",
            "Export a module that returns one row of logits per picture.",
        )
    return rest[0]


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

    def tell(step: str) -> None:
        say(step=step)
        limit_time(request["run_seconds"] if step == _RUNNING else 0)

    limit_resources(memory_bytes=request["memory_bytes"], file_bytes=request["file_bytes"])
    try:
        say(reply=inspect(request, tell))
    except ParedownError as error:
        say(error=[type(error).__name__, error.where, error.what, error.fix])


if __name__ == "__main__":
    main()
