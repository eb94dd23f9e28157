"""SIGKILL for all processes that a search finds, again and again: each may start another one before it ends."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence
from typing import Callable

from .identity import ProcessIdentity
from .send_signal import send_signal

_PAUSE = 0.005  # seconds between two searches: time to die, and short beside the time that a search takes


def kill(process: ProcessIdentity) -> None:
    """Send SIGKILL, if the process is still there and may be sent it."""
    with contextlib.suppress(OSError):
        send_signal(process, signal.SIGKILL)


def kill_until_gone(
    find: Callable[[], Sequence[ProcessIdentity]],
    within: float,
    kill: Callable[[ProcessIdentity], object] = kill,
) -> Sequence[ProcessIdentity]:
    """Call `kill` with each process that `find` returns, until that returns none or `within` seconds are over.

    Returns those that are left. Blocks meanwhile.
    """
    deadline = time.monotonic() + within
    while True:
        found = find()
        if not found or time.monotonic() >= deadline:
            return found
        for process in found:
            kill(process)
        time.sleep(_PAUSE)
