"""The processes that workers have started and left behind when they ended: they have the listening socket, too.

The kernel makes this process the parent of all below it whose own parent ends (libc.adopt_orphans). So an orphan is a
child that is no worker, and that was not there before the manager. Where there is no such service of the kernel, none
are found.

If the manager is killed, a watchdog ends what its workers have started, as far as their environment tells it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, MutableMapping
from functools import partial
from math import inf
from typing import Callable

from ..errors import IpclockerError
from ..net.loop import READ, Loop
from ..process import libc
from ..process.identity import ProcessIdentity, identify, proc_status
from ..process.kill_leftovers import MARKS, living, manager_mark, with_marks
from ..process.kill_until_gone import kill_until_gone
from ..process.send_signal import send_signal
from ..process.tree import can_be_seen, own_children, with_descendants
from ..process.tree_killer import TreeKiller
from ..process.watchdog import Watchdog

_LOOK_AGAIN = 0.25  # seconds between two looks of the watchdog, each of which reads all of /proc
_KILL_WITHIN = 2.0  # seconds; what was killed is gone at once unless the kernel is stuck


class Orphans:
    """The orphans of one manager, which is this process, and the watchdog that ends them if that is killed."""

    def __init__(
        self,
        is_worker: Callable[[int], bool],
        stop_signal: int,
        die_timeout: float,
        notify: Callable[[str], object],
    ) -> None:
        """Adopt orphans from now on. `is_worker` tells which children are workers.

        `stop_signal` tells a process to stop; the watchdog kills it after `die_timeout` seconds. `notify` is called
        with messages for people.
        """
        self._is_worker = is_worker
        self._notify = notify
        self._stop_signal = stop_signal
        self._told: set[int] = set()
        manager = identify(os.getpid())
        self._mark = manager_mark(manager)
        self._watchdog: Watchdog | None = None
        if manager.pid != 1:  # with process 1 of a container the kernel ends all others
            try:
                self._watchdog = Watchdog(inf, partial(_end_without_manager, manager, stop_signal, die_timeout))
            except IpclockerError as problem:
                notify(f"{problem}: if this process is killed, what workers have started may live on")
            if sys.platform.startswith("linux") and not can_be_seen():
                notify("/proc is missing or shows another pid namespace: what workers have started may live on")
        self._others = set(own_children())  # whatever they are, they are the caller's
        libc.adopt_orphans()

    def watch_watchdog(self, loop: Loop) -> None:
        """Start another watchdog whenever it is killed, from now on."""
        if self._watchdog is not None:
            loop.watch(self._watchdog.fileno(), READ, lambda events: self._restart_watchdog(loop))

    def _restart_watchdog(self, loop: Loop) -> None:
        assert self._watchdog is not None
        loop.unwatch(self._watchdog.fileno())
        libc.adopt_orphans(False)  # it is one
        try:
            self._watchdog.restart(inf)
        except IpclockerError as problem:
            self._notify(f"{problem}: if this process is killed, what workers have started may live on")
        else:
            self._notify("the watchdog process was killed: another one is there")
            self.watch_watchdog(loop)
        libc.adopt_orphans()

    def mark(self, environment: MutableMapping[str, str]) -> None:
        """Mark the environment of a worker, so that what it starts is found there."""
        environment[MARKS] = with_marks(environment, self._mark)[MARKS]

    def find(self) -> list[int]:
        """Return the pids of all that are left, those that have ended since the last `reap` too."""
        children = own_children()
        self._others &= set(children)
        return [pid for pid in children if pid not in self._others and not self._is_worker(pid)]

    def reap(self) -> None:
        """Ask for the status of those that have ended; to be called on SIGCHLD."""
        for pid in self.find():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def tell_to_stop(self) -> list[int]:
        """Send the stop signal to those that were not sent it by an earlier call; return their pids."""
        found = self.find()
        new = [pid for pid in found if pid not in self._told]
        self._told = set(found)
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, self._stop_signal)
        return new

    def kill(self, workers: Iterable[int]) -> None:
        """Kill these workers, the orphans, and all below them. Blocks until they are gone, for 2 seconds at most."""

        def find() -> list[ProcessIdentity]:
            return living(with_descendants(map(identify, [*workers, *self.find()])))

        kill_until_gone(find, _KILL_WITHIN)

    def close(self) -> None:
        """Adopt no more, and end the watchdog."""
        libc.adopt_orphans(False)
        if self._watchdog is not None:
            self._watchdog.disarm()

    def detach_after_fork(self) -> None:
        """Leave the watchdog to the parent, in a worker."""
        if self._watchdog is not None:
            self._watchdog.close_after_fork()


def _end_without_manager(manager: ProcessIdentity, stop_signal: int, die_timeout: float) -> None:
    """In the watchdog: end the workers of a manager that was killed, and what they have started.

    The kernel has told the workers to stop. Each other process is told when the one that has started it is gone. What
    is left after the timeout is killed.
    """
    killer = TreeKiller(manager, MARKS, manager_mark(manager))
    deadline = time.monotonic() + die_timeout
    told: set[ProcessIdentity] = set()
    while left := killer.find_remaining():
        if time.monotonic() >= deadline:
            killer.kill_all()
            return
        pids = {process.pid for process in left}
        for process in left:
            status = proc_status(process.pid)
            if status is not None and status.parent not in pids and process not in told:
                told.add(process)
                with contextlib.suppress(PermissionError):
                    send_signal(process, stop_signal)
        time.sleep(_LOOK_AGAIN)
