"""Runs a command line when a lock is lost, beside the command that ran under it."""

from __future__ import annotations

import time
from typing import Callable

from ..process.command_line import SHELL
from ..process.helper import spawn_helper
from ..process.identity import exists, identify

_WAIT = 5.0  # seconds for which its end is waited for: enough to send a message


class OnLostHook:
    """One run of a shell command line."""

    def __init__(self, line: str, additions: dict[str, str], report: Callable[[str], None]) -> None:
        """Start it with these additions to its environment. `report` is called with a message if it can't be run."""
        self._process = None
        try:
            self._process = identify(spawn_helper([SHELL, "-c", line], additions))
        except OSError as error:
            report(f"cannot run '{line}': {error.strerror}")

    def wait(self, wait: Callable[[float], None]) -> None:
        """Wait for its end, 5 seconds at most. `wait` is called to wait until a time (monotonic seconds)."""
        until = time.monotonic() + _WAIT
        process = self._process
        while process is not None and exists(process.pid, process.start) is not False and time.monotonic() < until:
            wait(time.monotonic() + 0.01)
