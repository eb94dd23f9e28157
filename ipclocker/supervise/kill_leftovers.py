"""Killing all processes of a kind until none is left: when nobody is there to end them more gently."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Callable

from ..process.identity import ProcessIdentity, exists, identify
from ..process.send_signal import send_signal
from ..process.tree import marked, with_descendants
from .process_groups import MARKS

_WITHIN = 5.0  # seconds; what has not ended by then can't be
_PAUSE = 0.01  # seconds between two looks


def sweep() -> list[int]:
    """Kill every process below this one; those that could not be ended in a few seconds.

    Asks for the status of all children. Where this process is not the one that gets the orphans (libc.adopt_orphans),
    or the system does not tell who is below it, some may be missed.
    """
    this = identify(os.getpid())

    def find() -> list[ProcessIdentity]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return with_descendants([this])[1:]

    return _kill(find)


def kill_programs_of(supervisor: ProcessIdentity, mark: str) -> list[int]:
    """Kill every process below a supervisor, which may be stopped, or that carries its mark if it is gone by now."""

    def find() -> list[ProcessIdentity]:
        found = {*with_descendants([supervisor])[1:], *marked(MARKS, mark)}
        return [process for process in found if process.pid != os.getpid()]

    return _kill(find)


def _kill(find: Callable[[], list[ProcessIdentity]]) -> list[int]:
    deadline = time.monotonic() + _WITHIN
    while True:
        found = [process for process in find() if exists(process.pid, process.start) is not False]
        if not found or time.monotonic() > deadline:
            return [process.pid for process in found]
        for process in found:
            with contextlib.suppress(OSError):
                send_signal(process, signal.SIGKILL)
        time.sleep(_PAUSE)
