"""The Event `lost` of a Locker: set by who hears of the loss, or found to be set since the hold time is over."""

from __future__ import annotations

import time
from math import inf
from threading import Event

_LOOK_AGAIN = 5.0  # seconds; while one waits, `until` may be set by a lock that is obtained meanwhile


class LossEvent(Event):
    """An Event that is also set from `until` on (monotonic seconds), without a thread that would set it then."""

    until = inf

    def is_set(self) -> bool:
        """Return True if the lock is known to be lost, or its hold time is over."""
        return super().is_set() or time.monotonic() >= self.until  # no `set`, which takes a lock: a signal handler asks

    isSet = is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for `timeout` seconds at most; True if it is."""
        deadline = inf if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = min(deadline, self.until) - time.monotonic()
            if super().wait(max(0.0, min(left, _LOOK_AGAIN))) or (time.monotonic() >= deadline and not self.is_set()):
                break
        return self.is_set()
