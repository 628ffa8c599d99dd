"""The process of one runtime: `python -m workers.engines.serving NAME` opens files and runs them as told.

It takes the times itself, so that they hold nothing of the pipe. It ends with its standard input.
"""

import gc
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from workers.engines.wire import Refused, receive, send
from workers.stopwatch import timed

Call = Callable[[np.ndarray], np.ndarray]
#: Whoever asked is on the same core and needs a moment to lie down; else it pushes the call off.
ASIDE_S = 2e-4


def main() -> None:
    name = sys.argv[1]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    gc.disable()  # while a time is taken; it has its turn when a file is closed
    serve(sys.stdin.buffer, answers, name)


def serve(questions: IO[bytes], answers: IO[bytes], name: str) -> None:
    """Answer until the questions end."""
    opened: dict[int, tuple[Call, int]] = {}
    while (question := receive(questions)) is not None:
        message, inputs = question
        try:
            engine = importlib.import_module(f"workers.engines.{name}")
            _close(opened, message["closed"])
            if message["do"] == "open":
                threads = message["threads"]
                opened[message["id"]] = engine.open_file(Path(message["file"]), threads), threads
                send(answers, {})
            else:
                assert inputs is not None
                # True where an engine computes in threads of its own.
                elsewhere = getattr(engine, "OWN_THREADS", False)
                send(answers, *_run(*opened[message["id"]], inputs, message, elsewhere))
        except Exception as error:  # noqa: BLE001 - whatever an engine raises becomes a sentence
            why = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            send(answers, {"refused": " ".join(why.split())[:400]})


def _close(opened: dict[int, tuple[Call, int]], numbers: Sequence[int]) -> None:
    for number in numbers:
        opened.pop(number, None)
    if numbers:
        gc.collect()


def _run(
    call: Call, threads: int, inputs: np.ndarray, message: dict[str, Any], elsewhere: bool
) -> tuple[dict[str, Any], np.ndarray | None]:
    if message["do"] == "run":
        return {}, call(inputs)
    time.sleep(ASIDE_S)
    if message["warm"]:
        call(inputs)
    seconds, disturbed = timed(partial(call, inputs), threads=threads, elsewhere=elsewhere)
    return {"seconds": seconds, "disturbed": disturbed}, None


if __name__ == "__main__":
    main()
