"""ExecuTorch on the processor, for phones and small boards."""

from typing import ClassVar

from workers.engines.child import ChildRuntime


class ExecuTorch(ChildRuntime):
    """The trainable archive of a stage, lowered to XNNPACK."""

    title = "ExecuTorch"
    package = "executorch"
    install: ClassVar[str] = "pip install 'paredown[executorch]'"
    suffix = ".pt2"
    whole_models_only = True
