"""Torch, compiled by inductor."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import ClassVar

from workers.engines.child import ChildRuntime


class TorchCompile(ChildRuntime):
    """The trainable archive of a stage, compiled with a dynamic batch; the time that takes is not counted."""

    title = "torch.compile"
    package = "torch"
    install: ClassVar[str] = "apt install g++ python3-dev"
    suffix = ".pt2"
    whole_models_only = True

    @classmethod
    def missing(cls) -> str | None:
        compiler = os.environ.get("CXX")
        if not any(shutil.which(name) for name in ([compiler] if compiler else ["g++", "clang++"])):
            return f"Inductor needs a C++ compiler, and there is no {compiler or 'g++ or clang++'}."
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            return "Inductor needs the headers of Python, and there is no Python.h."
        return super().missing()
