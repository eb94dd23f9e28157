"""Connections that stay open for a while after they were used, so that the next use of their owner needs no new one.

The owner parks its connection and takes it back; the background thread closes one that was not taken back for
`IDLE_SECONDS`. All take a connection by `dict.pop`, so only one of them gets it. Nobody is woken when a connection is
parked or taken: the thread looks when the one that was parked first may be due, and ends when it finds none.

Before a fork all are closed: a child has no copies of them, and the process has no thread for them meanwhile.
"""

from __future__ import annotations

import atexit
import os
import time

from .connection import ServerConnection
from .steps import Steps

IDLE_SECONDS = 55.0  # it is closed within a minute, with the time between two looks
SHORTEST_PAUSE = 1.0  # seconds between two looks

_parked: dict[object, tuple[ServerConnection, float]] = {}  # by owner, with its time: the first was parked first


def park(owner: object, connection: ServerConnection) -> None:
    """Leave the connection open for its owner to take it back, or for the background thread to close it.

    If there can be no such thread it is closed now.
    """
    _parked[owner] = connection, time.monotonic()
    if _sweep.is_over:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        _start_sweep()


def take(owner: object) -> ServerConnection | None:
    """Take back what the owner has parked; None if that is nothing, or closed by now."""
    found = _parked.pop(owner, None)
    return None if found is None else found[0]


class _Sweep:
    """A task that closes what nobody has taken back in time, until there is nothing. Two at a time are no harm."""

    is_over = False

    def end(self) -> None:
        """Close all that is parked; from here on, the next who parks begins another sweep."""
        self.is_over = True
        _close_all()

    def steps(self) -> Steps[None]:
        while True:
            next_look = _close_what_is_due()
            if not _parked:
                self.is_over = True
                if not _parked:  # who has parked since has seen that the sweep is over, or is seen here
                    return
                self.is_over = False
            yield None, 0, next_look


def _start_sweep() -> None:
    global _sweep
    sweep = _Sweep()
    try:
        from .background import Task, start  # only here: a process that runs one command does without

        start(Task(sweep.steps(), sweep.end, "the closing of idle connections", at_fork=sweep.end))
    except (OSError, RuntimeError, ImportError):  # there is nothing to be imported when Python is ending
        sweep.end()
    else:
        _sweep = sweep


def _close_what_is_due() -> float:
    """Close what was parked for too long; when to look again, in monotonic seconds."""
    now = time.monotonic()
    for owner in list(_parked):
        _, parked_at = _parked.get(owner, (None, -IDLE_SECONDS))
        if parked_at + IDLE_SECONDS > now:
            return max(parked_at + IDLE_SECONDS, now + SHORTEST_PAUSE)
        _close(owner)
    return now + SHORTEST_PAUSE


def _close_all() -> None:
    for owner in list(_parked):
        _close(owner)


def _close(owner: object) -> None:
    connection = take(owner)
    if connection is not None:
        connection.close()


def _after_fork_in_child() -> None:
    _sweep.end()


_sweep = _Sweep()
_sweep.is_over = True
os.register_at_fork(after_in_child=_after_fork_in_child)
