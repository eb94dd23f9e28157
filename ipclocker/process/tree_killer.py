"""Ends a command for good, with all that it has started: by a signal, and later by SIGKILL for what is left.

To the command belong the processes below it (tree.py) and, wherever they have gone, those that carry the run's mark in
their environment. They are looked for again and again until none is left, since each may start another one before it
ends. A process that was seen once is remembered: when its parent ends, it is not found below the command any more.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Callable

from .identity import ProcessIdentity, exists
from .kill_until_gone import kill_until_gone
from .send_signal import send_signal
from .tree import ancestors, last_started, marked, with_descendants

_KILL_WITHIN = 3.0  # seconds; a process that does not end by SIGKILL then is stuck in the kernel
_SEARCH_WITHIN = 0.5  # seconds; on a busy host other processes are started all the time


class TreeKiller:
    """Ends a command and what belongs to it: what it has started, and what has `mark` in the list of `variable`.

    `report` is called with a message for people about what can't be done.
    """

    def __init__(
        self, command: ProcessIdentity, variable: str, mark: str, report: Callable[[str], None] = lambda text: None
    ) -> None:
        self.command = ProcessIdentity(command.pid, command.start)  # as the others are named
        self._variable = variable
        self._mark = mark
        self._report = report
        self._seen = {self.command}
        # The command itself may be above: one that gets orphans gets a process that goes to the background as well.
        self._spared = ({os.getpid()} | ancestors(os.getpid())) - {command.pid}
        self._denied: set[ProcessIdentity] = set()

    @property
    def has_ended(self) -> bool:
        """True if the command itself is gone; others may be left."""
        return exists(self.command.pid, self.command.start) is False

    def signal_command(self, number: int) -> None:
        """Send a signal to the command alone."""
        self.find_remaining()  # they are remembered
        self._send(self.command, number)

    def signal_rest(self, number: int) -> None:
        """Send a signal to all that is left."""
        for process in self.find_remaining():
            self._send(process, number)

    def find_remaining(self, at_once: int | None = None) -> list[ProcessIdentity]:
        """Return what is left, but for processes of other users that can't be sent signals.

        The oldest come first: so none sees that a process which it has started has ended, and goes on. `at_once` is
        a signal for those that carry the mark, sent as soon as each is seen.
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
        """Send SIGKILL to all that is left until nothing is. Blocks for 3 seconds at most.

        Nothing is left when none is found while no process at all was started: a new one may have been missed.
        """
        search_until = time.monotonic() + _SEARCH_WITHIN
        at_once = None  # the first time in order of age

        def find() -> list[ProcessIdentity]:
            nonlocal at_once
            while True:
                last = last_started()
                found = self.find_remaining(at_once)
                at_once = signal.SIGKILL
                if found or last == last_started() or time.monotonic() >= search_until:
                    return found

        left = kill_until_gone(find, _KILL_WITHIN, lambda process: self._send(process, signal.SIGKILL))
        if left:
            self._report(f"process {left[0].pid} does not end by SIGKILL")

    def _send(self, process: ProcessIdentity, number: int) -> None:
        try:
            send_signal(process, number)
        except PermissionError:
            if process not in self._denied:
                self._report(f"process {process.pid} can't be ended: it is another user's")
            self._denied.add(process)
