"""The options of lockersh that concern the command which runs under the lock."""

from __future__ import annotations

import signal
from typing import NamedTuple, Optional

from ..lock.client.acquisition import RELEASE_WITHIN

WARN, KILL = "warn", "kill"
GRACE = 5.0  # seconds from the signal to SIGKILL, where no lease sets the time: enough to end in good order
MARKS = "IPCLOCKER_RUN"  # in a command's environment: the marks of all runs that it belongs to, separated by colons


class RunOptions(NamedTuple):
    """The options of a command that runs under a lock.

    wait: the longest wait for the lock in seconds, 0 for one try, None for ever
    release_within: how long to try to give it back to a server that does not answer (seconds)
    lost_signal: what the command gets if it is to end because the lock is lost
    on_lost: WARN, KILL, or a command line for a shell; with a lease the command is ended, whichever it is
    verbose: say how the acquisition goes on; quiet: say nothing of it but errors
    nested: if the lock is held by a run that this one is part of, run the command under it, and end it with that run
    """

    wait: Optional[float] = None
    release_within: float = RELEASE_WITHIN
    lost_signal: int = signal.SIGTERM
    on_lost: str = WARN
    verbose: bool = False
    nested: bool = False
    quiet: bool = False
