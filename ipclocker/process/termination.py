"""Ending a command: by a signal, sent to it or to all below it as well, and by SIGKILL for what is left later.

Each process is named by its start time with its number, so that another one under the same number is never met.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from functools import partial
from typing import Callable, NamedTuple, Optional

from ..net.loop import Loop
from .exit_watcher import ExitWatcher, Subscription
from .identity import ProcessIdentity, exists
from .send_signal import send_signal
from .signal_names import signal_name
from .spawn import caller_environment
from .tree import with_descendants

_ROUNDS = 10  # of looking for processes that were started while the others were killed


class KillPolicy(NamedTuple):
    """How to end a command: by which signal; `killer`, a program that sends it, called as kill(1) is; whether all
    processes below the command get it as well; after how many seconds of `grace` SIGKILL follows."""

    signal: int = signal.SIGHUP
    killer: Optional[str] = None
    tree: bool = False
    grace: Optional[float] = None


class Termination:
    """Ends a command once; from then on it is `begun`."""

    def __init__(self, loop: Loop, watch: ExitWatcher, way: KillPolicy, tell: Callable[[str], None]) -> None:
        self._loop = loop
        self._watch = watch
        self._way = way
        self._tell = tell
        self._left: dict[ProcessIdentity, Subscription] = {}
        self.begun = False

    @property
    def is_waiting(self) -> bool:
        """Whether something is left for SIGKILL at the end of the grace."""
        return bool(self._left)

    def begin(self, command: ProcessIdentity) -> list[int]:
        """Send the signal; to which processes."""
        self.begun = True
        processes = self._all_below([command])
        for process in processes:
            self._send(process, self._way.signal)
        if self._way.grace is not None:
            for process in processes:
                self._left[process] = self._watch.add(process, partial(self._ended, process))
            self._loop.call_at(self._loop.now + self._way.grace, self._kill_rest)
        return [process.pid for process in processes]

    def _ended(self, process: ProcessIdentity) -> None:
        del self._left[process]

    def _kill_rest(self) -> None:
        killed: set[ProcessIdentity] = set()
        for _ in range(_ROUNDS):
            rest = [process for process in self._all_below(self._left) if process not in killed]
            for process in rest:
                self._send(process, signal.SIGKILL)
            killed.update(rest)
            if not rest:
                break
        for watched in self._left.values():
            self._watch.remove(watched)
        self._left.clear()

    def _all_below(self, processes: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
        return with_descendants(processes) if self._way.tree else list(processes)

    def _send(self, process: ProcessIdentity, number: int) -> None:
        if self._way.killer is not None and self._call(self._way.killer, process, number):
            return
        try:
            send_signal(process, number)
        except PermissionError:
            self._tell(f"cannot send process {process.pid} SIG{signal_name(number)}: it is another user's")

    def _call(self, killer: str, process: ProcessIdentity, number: int) -> bool:
        """Start the killer, and do not wait for it; whether it could be executed."""
        if exists(process.pid, process.start) is False:
            return True
        try:
            os.posix_spawnp(
                killer,
                [killer, f"-{signal_name(number)}", str(process.pid)],
                caller_environment(),
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
                setsigmask=(),  # here they may be blocked, to be read from a descriptor
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as error:
            self._tell(f"cannot execute the killer '{killer}': {error.strerror}; the signal is sent without it")
            return False
        return True
