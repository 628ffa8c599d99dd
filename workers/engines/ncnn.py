"""ncnn on the processor, in float32. It knows no batch: the samples of one go through one after another.

pnnx, a program that comes as a package, converts the exported file.
"""

import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import ncnn
import numpy as np
import onnx

from workers.engines.wire import Refused

CONVERT_SECONDS = 120


def open_file(file: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    net = _load(*_converted(file, file.stat().st_mtime_ns), threads)
    given, wanted = net.input_names()[0], net.output_names()[0]

    def one(sample: np.ndarray) -> np.ndarray:
        with net.create_extractor() as extractor:
            extractor.input(given, ncnn.Mat(sample))
            code, logits = extractor.extract(wanted)
            if code != 0:
                raise Refused(f"ncnn gives up while it computes (code {code})")
            return np.array(logits).reshape(-1)

    return lambda inputs: np.stack([one(sample) for sample in inputs])


@cache  # a file is opened many times
def _converted(file: Path, changed_ns: int) -> tuple[bytes, bytes]:  # noqa: ARG001 - part of the key
    """Structure and weights."""
    (given,) = onnx.load(file, load_external_data=False).graph.input
    sizes = ",".join(str(size.dim_value) for size in given.type.tensor_type.shape.dim[1:])
    package = find_spec("pnnx")
    assert package is not None
    assert package.submodule_search_locations
    program = Path(package.submodule_search_locations[0]) / "pnnx"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"  # what it writes lies beside what it reads
        copy.symlink_to(file)
        command: list[str | Path] = [program, copy, f"inputshape=[1,{sizes}]f32", "fp16=0"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, timeout=CONVERT_SECONDS, check=True)
            found = copy.with_suffix(".ncnn.param"), copy.with_suffix(".ncnn.bin")
            return found[0].read_bytes(), found[1].read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            raise Refused(f"pnnx cannot convert it ({type(error).__name__})") from error


def _load(structure: bytes, weights: bytes, threads: int) -> ncnn.Net:
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for half in ("packed", "storage", "arithmetic"):  # with half floats it would be another model
        setattr(net.opt, f"use_fp16_{half}", False)
    net.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model.param", Path(folder) / "model.bin"
        for path, content in zip(files, (structure, weights), strict=True):
            path.write_bytes(content)
        if net.load_param(str(files[0])) != 0 or net.load_model(str(files[1])) != 0:
            raise Refused("it has operators that ncnn does not know")
    return net
