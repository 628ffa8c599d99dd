"""Torch, operator by operator: what a model costs before it is exported."""

from typing import ClassVar

from workers.engines.child import ChildRuntime


class TorchEager(ChildRuntime):
    """The trainable archive of a stage, in inference mode."""

    title = "torch eager"
    package = "torch"
    install: ClassVar[str] = "pip install torch"
    suffix = ".pt2"
    whole_models_only = True
