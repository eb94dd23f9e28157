"""Looking at a KeepAlive, and at the thread that takes its steps, from outside."""

from __future__ import annotations

import gc
import threading

from ipclocker.lock.client import background
from ipclocker.lock.client.keepalive import KeepAlive

from .waiting import wait_for


def is_settled(keepalive: KeepAlive) -> bool:
    """True if the server has answered all that it was asked, on the connection that there is now."""
    connection = keepalive._connector.connection
    return keepalive._inquiry is None and connection is not None and keepalive._checked_on is connection


def background_threads() -> int:
    return sum(thread.name == "ipclocker" for thread in threading.enumerate())


def renewed_leases() -> int:
    """How many leases this process renews."""
    return sum(not (task.stopped or task.at_fork) for task in background._tasks(background._shared))


def end_background() -> None:
    """Stop all that is done in the background, and wait for the end of its thread; nothing of it is open then."""
    for task in background._tasks(background._shared):
        background.stop(task)
        if task.at_fork is not None:
            task.at_fork()
    wait_for(lambda: background_threads() == 0, "the end of the thread")
    gc.collect()  # a thread that was never started may be left in a circle
