"""What goes through the pipe between a runtime's process and ours: a line of JSON, then raw numbers.

Imports nothing of Paredown.
"""

import json
from typing import IO, Any

import numpy as np


class Refused(Exception):
    """A runtime cannot run a file; the sentence says why."""


def send(stream: IO[bytes], message: dict[str, Any], array: np.ndarray | None = None) -> None:
    """array: float32 of any shape; travels as it lies in memory."""
    if array is not None:
        array = np.ascontiguousarray(array, np.float32)
        message = message | {"shape": array.shape}
    stream.write(json.dumps(message).encode() + b"\n")
    if array is not None:
        stream.write(array.data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], np.ndarray | None] | None:
    """None at the end of the stream."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message = dict(json.loads(line))
    if "shape" not in message:
        return message, None
    array = np.empty(message["shape"], np.float32)
    left = array.reshape(-1).view(np.uint8).data
    while left:
        count = stream.readinto(left)  # type: ignore[attr-defined]
        if not count:
            return None
        left = left[count:]
    return message, array
