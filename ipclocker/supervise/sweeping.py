"""Ending all that there is below this process, whoever has started it: when nobody is there to do it more gently."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ..pid.identity import identify
from ..run.descendants import with_descendants
from ..run.killing import send_signal

_WITHIN = 5.0  # seconds; what has not ended by then can't be
_PAUSE = 0.01  # seconds between two looks


def sweep() -> list[int]:
    """Kill every process below this one, until none is left; those that could not be ended in a few seconds.

    Asks for the status of all children. Where this process is not the one that gets the orphans (libc.adopt_orphans),
    or the system does not tell who is below it, some may be missed.
    """
    deadline = time.monotonic() + _WITHIN
    this = identify(os.getpid())
    while True:
        _reap()
        below = with_descendants([this])[1:]
        if not below or time.monotonic() > deadline:
            return [process.pid for process in below]
        for process in below:
            with contextlib.suppress(OSError):
                send_signal(process, signal.SIGKILL)
        time.sleep(_PAUSE)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
