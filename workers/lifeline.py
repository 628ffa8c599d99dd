"""Ties a process's life to its parent's: `python -m workers.lifeline PARENT_PID COMMAND …`.

The kernel kills the command as soon as the parent is gone, however that ended, so nothing is left behind:
supervisor -> worker -> job is a chain of such ties. (Linux; elsewhere the command runs untied.)

Imports nothing of Paredown: it becomes the command within milliseconds.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` tied to the calling process.

    The tie is to the calling *thread*: start it from one that lives as long as the process.
    """
    return [sys.executable, "-m", "workers.lifeline", str(os.getpid()), *command]


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it died before the tie was there
            sys.exit(1)
    os.execvp(command[0], command)  # keeps the process id and the tie


if __name__ == "__main__":
    main()
