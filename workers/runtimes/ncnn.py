"""ncnn on the processor, for phones and small boards."""

from importlib.util import find_spec
from typing import ClassVar

from workers.engines.child import ChildRuntime


class Ncnn(ChildRuntime):
    """The exported file, converted by pnnx; float32, one sample at a time."""

    title = "ncnn"
    package = "ncnn"
    install: ClassVar[str] = "pip install 'paredown[ncnn]'"

    @classmethod
    def missing(cls) -> str | None:
        if find_spec("ncnn") and not find_spec("pnnx"):
            return "The package pnnx, which converts files for it, is not installed."
        return super().missing()
