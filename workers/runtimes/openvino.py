"""OpenVINO on the processor."""

from typing import ClassVar

from workers.engines.child import ChildRuntime


class OpenVino(ChildRuntime):
    """The exported file as it is."""

    title = "OpenVINO"
    package = "openvino"
    install: ClassVar[str] = "pip install 'paredown[openvino]'"
    stops_early = True
