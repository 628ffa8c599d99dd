"""Our end of the pipe to a runtime's process."""

import contextlib
import itertools
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from workers.base import Runtime, Session
from workers.engines.wire import receive, send
from workers.errors import ModelRefused, SomethingMissing
from workers.host import usable_cores
from workers.lifeline import tied

END_SECONDS = 5


class Child:
    """A process that opens and runs files for one runtime; ends when nothing refers to it any more."""

    def __init__(self, engine: str, title: str) -> None:
        self.title = title
        self._ids = itertools.count()
        #: Files that nobody holds any more; told with the next question, since the collector may find them
        #: in the middle of one.
        self._closed: list[int] = []
        # No copy of the pipe's end may stay in processes that others start meanwhile: it would never end.
        self._process = subprocess.Popen(
            tied([sys.executable, "-m", "workers.engines.serving", engine]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._turn = threading.Lock()
        weakref.finalize(self, _end, self._process)

    def open(self, file: Path, threads: int) -> int:
        number = next(self._ids)
        self.ask({"do": "open", "id": number, "file": str(file.resolve()), "threads": threads}, file)
        return number

    def close(self, number: int) -> None:
        self._closed.append(number)

    def ask(
        self, message: dict[str, object], file: Path, inputs: np.ndarray | None = None
    ) -> tuple[dict[str, float], np.ndarray | None]:
        """Raises ModelRefused with what the runtime says of the file, or when it died of it."""
        assert self._process.stdin
        assert self._process.stdout
        with self._turn:
            closed, self._closed = self._closed, []
            try:
                send(self._process.stdin, message | {"closed": closed}, inputs)
                answer = receive(self._process.stdout)
            except OSError:
                answer = None
        if answer is None:
            why = f"its process ended (code {self._process.wait(END_SECONDS)})."
        elif "refused" in answer[0]:
            why = str(answer[0]["refused"]).replace(str(file.parent), "").rstrip(".") + "."
        else:
            return answer
        raise ModelRefused(file.name, f"{self.title} cannot run it: {why}", "Use another runtime for it.")


def _end(process: "subprocess.Popen[bytes]") -> None:
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            stream.close()  # type: ignore[union-attr]
    process.terminate()  # it may be in the middle of a call, and holds nothing that is worth waiting for
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


#: Processes that something refers to, by engine, threads and cores: an engine starts its threads once, and
#: they stay on the cores they were started on.
_running: "weakref.WeakValueDictionary[tuple[str, int, tuple[int, ...]], Child]" = (
    weakref.WeakValueDictionary()
)


class ChildRuntime(Runtime):
    """A runtime whose engine is `workers.engines.<id>`, in a process of its own."""

    #: Suffix of what it runs, when that is not the exported file itself but lies beside it.
    suffix: ClassVar[str | None] = None

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> "ChildSession":  # noqa: ARG002
        """Raises SomethingMissing, and ModelRefused for a file that the runtime cannot run.

        optimize: these engines know no way to leave a graph as it is written.
        """
        missing = self.missing()
        if missing:
            raise SomethingMissing(self.title, missing, f"{self.install}.")
        given = file if self.suffix is None else file.with_suffix(self.suffix)
        if not given.exists():
            why = f"there is no `{given.name}` beside it, the trainable form that torch runs."
            raise ModelRefused(file.name, f"{self.title} cannot run it: {why}", "Use another runtime for it.")
        return ChildSession(self._child(threads), given, threads)

    @contextmanager
    def ready(self, threads: int) -> Iterator[None]:
        """Keeps the process for as long as this is open."""
        child = None if self.missing() else self._child(threads)
        yield
        del child

    def _child(self, threads: int) -> Child:
        key = self.id(), threads, tuple(usable_cores())
        child = _running.get(key)
        if child is None or child._process.poll() is not None:
            child = _running[key] = Child(self.id(), self.title)
        return child


class ChildSession(Session):
    """A file that is open in the runtime's process."""

    def __init__(self, child: Child, file: Path, threads: int) -> None:
        self._child, self._file = child, file
        self._number = child.open(file, threads)
        weakref.finalize(self, child.close, self._number)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        _, logits = self._child.ask({"do": "run", "id": self._number}, self._file, inputs)
        assert logits is not None
        return logits

    def timed(self, inputs: np.ndarray, threads: int, *, warm: bool = False) -> tuple[float, bool]:  # noqa: ARG002
        """The runtime's process takes the time: nothing of the pipe is in it."""
        message: dict[str, object] = {"do": "time", "id": self._number, "warm": warm}
        told, _ = self._child.ask(message, self._file, inputs)
        return told["seconds"], bool(told["disturbed"])
