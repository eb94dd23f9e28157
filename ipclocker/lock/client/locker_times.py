"""How long the requests of a Locker may take, in seconds; deadlines are on the monotonic clock."""

from __future__ import annotations

import time
from math import inf

from ...errors import UsageError
from ...parameters import wrong

ONE_TRY = 5.0  # for a request that does not wait, at all servers together
_AFTER = 0.4  # after the end of a wait: a late answer is read in it, and the request is taken back


def wait_limit(blocking: bool, timeout: float | None) -> tuple[bool, float]:
    """Return whether `acquire` is to wait, and for how long. Raises ValueError."""
    if blocking not in (True, False):
        raise wrong("blocking", blocking, "True or False")
    if not blocking and timeout != -1:
        raise UsageError(f"timeout is {timeout!r}, but a non-blocking call takes none")
    if timeout is None or timeout == -1:
        return blocking, inf
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise wrong("timeout", timeout, "a number of seconds, or -1 or None for no limit")
    return blocking, timeout


def times_of(wait: bool, limit: float) -> tuple[bool, float, float]:
    """Return whether to wait for a lock, until when to ask for it, and when all that belongs to it is over."""
    if not wait:
        limit = ONE_TRY - _AFTER
    elif limit == 0:
        wait, limit = False, _AFTER / 2
    elif limit == inf:
        return True, inf, inf
    deadline = time.monotonic() + limit
    return wait, deadline, deadline + _AFTER
