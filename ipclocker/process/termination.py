"""Ends a command: by a signal, to it alone or to all below it as well, and later by SIGKILL for what is left.

Each process is named by its start time with its number: so no other process that gets the same number is ever hit.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from functools import partial
from typing import Callable, NamedTuple, Optional

from ..net.loop import Loop
from .exit_watcher import ExitWatcher, Subscription
from .helper import spawn_helper
from .identity import ProcessIdentity, exists
from .kill_until_gone import kill_until_gone
from .send_signal import send_signal
from .signal_names import signal_name
from .tree import with_descendants

# Seconds in which processes are looked for that were started while the others were killed. Nothing else is done
# meanwhile; mostly the second search finds none.
_SEARCH_WITHIN = 0.5


class KillPolicy(NamedTuple):
    """Policy for ending a command.

    signal: the number of the signal that is sent first
    killer: a program that sends the signals, called as kill(1) is; None: they are sent directly
    tree: True if all processes below the command get them as well
    grace: the seconds after which SIGKILL follows; None: it does not
    """

    signal: int = signal.SIGHUP
    killer: Optional[str] = None
    tree: bool = False
    grace: Optional[float] = None


class Termination:
    """Ends a command once; `begun` is True from then on. `report` is called with messages for people."""

    def __init__(self, loop: Loop, watcher: ExitWatcher, policy: KillPolicy, report: Callable[[str], None]) -> None:
        self._loop = loop
        self._watcher = watcher
        self._policy = policy
        self._report = report
        self._left: dict[ProcessIdentity, Subscription] = {}
        self.begun = False

    @property
    def is_waiting(self) -> bool:
        """True while some process is left that gets SIGKILL at the end of the grace."""
        return bool(self._left)

    def begin(self, command: ProcessIdentity) -> list[int]:
        """Send the first signal; return the pids of those that it was sent to."""
        self.begun = True
        processes = self._targets([command])
        for process in processes:
            self._send(process, self._policy.signal)
        if self._policy.grace is not None:
            for process in processes:
                self._left[process] = self._watcher.add(process, partial(self._ended, process))
            self._loop.call_at(self._loop.now + self._policy.grace, self._kill_rest)
        return [process.pid for process in processes]

    def _ended(self, process: ProcessIdentity) -> None:
        del self._left[process]

    def _kill_rest(self) -> None:
        killed: set[ProcessIdentity] = set()

        def kill(process: ProcessIdentity) -> None:
            self._send(process, signal.SIGKILL)
            killed.add(process)

        kill_until_gone(
            lambda: [process for process in self._targets(self._left) if process not in killed], _SEARCH_WITHIN, kill
        )
        for subscription in self._left.values():
            self._watcher.remove(subscription)
        self._left.clear()

    def _targets(self, processes: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
        return with_descendants(processes) if self._policy.tree else list(processes)

    def _send(self, process: ProcessIdentity, number: int) -> None:
        if self._policy.killer is not None and self._start_killer(self._policy.killer, process, number):
            return
        try:
            send_signal(process, number)
        except PermissionError:
            self._report(f"cannot send process {process.pid} SIG{signal_name(number)}: it is another user's")

    def _start_killer(self, killer: str, process: ProcessIdentity, number: int) -> bool:
        """Start the killer, and do not wait for it; False if it can't be executed."""
        if exists(process.pid, process.start) is False:
            return True
        try:
            spawn_helper([killer, f"-{signal_name(number)}", str(process.pid)])
        except OSError as error:
            self._report(f"cannot execute the killer '{killer}': {error.strerror}; the signal is sent without it")
            return False
        return True
