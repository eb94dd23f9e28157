"""The command line that is run when a lock is lost, besides the command that ran under it."""

from __future__ import annotations

import os
import signal
import time
from typing import Callable

from ..process.command_line import SHELL
from ..process.identity import exists, identify
from ..process.spawn import caller_environment

_WAIT = 5.0  # seconds for which its end is waited for


class OnLostHook:
    """A shell command line that runs from now on. `tell` is called if it can't be run."""

    def __init__(self, line: str, additions: dict[str, str], tell: Callable[[str], None]) -> None:
        self._process = None
        try:
            pid = os.posix_spawn(
                SHELL,
                [SHELL, "-c", line],
                {**caller_environment(), **additions},
                # What it prints is no part of the command's output.
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
                setsigmask=(),  # here they are blocked, to be read from a descriptor
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as error:
            tell(f"cannot run '{line}': {error.strerror}")
        else:
            self._process = identify(pid)

    def wait(self, wait: Callable[[float], None]) -> None:
        """Let it come to its end, if that does not take long; `wait` waits until a monotonic time."""
        until = time.monotonic() + _WAIT
        process = self._process
        while process is not None and exists(process.pid, process.start) is not False and time.monotonic() < until:
            wait(time.monotonic() + 0.01)
