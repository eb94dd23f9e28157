"""A loop that a test turns until something has happened."""

from __future__ import annotations

import time
from typing import Callable

from ipclocker.net.loop import Loop

DEADLINE = 20.0  # seconds; only reached when something is broken


def turn_until(loop: Loop, what: Callable[[], object], description: str) -> None:
    """Turn the loop until the answer is true."""
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, f"waited in vain: {description}"
        loop.turn(0.02)
