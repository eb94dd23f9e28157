"""Ending a command for good, with all that it has started: by a signal, and by SIGKILL for what is left of them later.

To it belong the process tree and, wherever they have gone, the processes that carry the run's mark (descendants.py).
They are looked for again and again until none is left, since each may start another one before it ends; who was seen
once is remembered, since one whose parent ends is not found below the command any more.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Callable

from .identity import ProcessIdentity, exists
from .send_signal import send_signal
from .tree import ancestors, last_started, marked, with_descendants

_KILL_WITHIN = 3.0  # seconds; one that does not end by SIGKILL then is stuck in the kernel
_SEARCH_WITHIN = 0.5  # seconds; on a busy host other processes are started all the time
_PAUSE = 0.005  # seconds between two looks


class TreeKiller:
    """Ends a command and what belongs to it: what it has started, and what has `mark` in the list of `variable`.

    `tell` is called with what can't be done.
    """

    def __init__(
        self, command: ProcessIdentity, variable: str, mark: str, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self.command = ProcessIdentity(command.pid, command.start)  # as the others are named
        self._variable = variable
        self._mark = mark
        self._tell = tell
        self._seen = {self.command}
        self._spared = {os.getpid()} | ancestors(os.getpid())
        self._denied: set[ProcessIdentity] = set()

    @property
    def has_ended(self) -> bool:
        """Whether the command itself is gone; others may be left."""
        return exists(self.command.pid, self.command.start) is False

    def signal_command(self, number: int) -> None:
        """Send the command a signal."""
        self.find_remaining()  # they are remembered
        self._send(self.command, number)

    def signal_rest(self, number: int) -> None:
        """Send a signal to all that is left."""
        for process in self.find_remaining():
            self._send(process, number)

    def find_remaining(self, at_once: int | None = None) -> list[ProcessIdentity]:
        """What is left, but for those of other users that can't be sent signals; the oldest first, so that none sees
        the end of another that it has started, and goes on.

        Those who carry the mark get the signal `at_once`, if it is given, as soon as they are seen.
        """
        for process in marked(self._variable, self._mark):
            if process.pid not in self._spared:
                self._seen.add(process)
                if at_once is not None:
                    self._send(process, at_once)
        self._seen.update(process for process in with_descendants(self._seen) if process.pid not in self._spared)
        self._seen = {process for process in self._seen if exists(process.pid, process.start) is not False}
        return sorted(self._seen - self._denied, key=lambda process: (process.start or 0, process.pid))

    def kill_all(self) -> None:
        """SIGKILL to all that is left, until nothing is: until that is seen while no process was started anywhere."""
        begin = time.monotonic()
        at_once = None
        while True:
            last = last_started()
            rest = self.find_remaining(at_once)
            for process in rest:
                self._send(process, signal.SIGKILL)
            at_once = signal.SIGKILL
            if not rest and (last == last_started() or time.monotonic() >= begin + _SEARCH_WITHIN):
                return
            if rest and time.monotonic() >= begin + _KILL_WITHIN:
                self._tell(f"process {rest[0].pid} does not end by SIGKILL")
                return
            if rest:
                time.sleep(_PAUSE)

    def _send(self, process: ProcessIdentity, number: int) -> None:
        try:
            send_signal(process, number)
        except PermissionError:
            if process not in self._denied:
                self._tell(f"process {process.pid} can't be ended: it is another user's")
            self._denied.add(process)
