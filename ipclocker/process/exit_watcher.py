"""Being told by the kernel when a process of this host is gone.

Each process has a pidfd in the event loop, which becomes readable when it ends (pidfd_open(2), Linux 5.3): that
costs nothing while it lives. Where there are none, or no descriptor is to spare, processes are looked at in turn,
each four times a second, or more seldom if there are more than a thousand.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from typing import Any, Callable, cast

from ..net.loop import READ, Loop
from .identity import ProcessIdentity, exists, open_pidfd

_PAUSE = 0.25  # seconds between two rounds of looking
_AT_ONCE = 250  # processes looked at in a round, at 20 us each


class Subscription:
    """One who waits for the end of a process; `remove` of the watch takes it."""

    __slots__ = ("gone", "process")

    def __init__(self, process: ProcessIdentity, gone: Callable[[], None]) -> None:
        self.process = process
        self.gone = gone


class _Process:
    """A process that is watched: for whom, and by which pidfd; None if it is looked at in turn."""

    __slots__ = ("descriptor", "waiting")

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self.waiting: list[Subscription] = []


class ExitWatcher:
    """Watches processes of this kernel and pid namespace (see identity.is_own) until they are gone.

    At most `most` descriptors are taken; half of those that are allowed if it is not given. What is called, is
    called in a turn of the loop, never within `add`.
    """

    def __init__(self, loop: Loop, most: int | None = None) -> None:
        self._loop = loop
        self._free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 if most is None else most
        self._processes: dict[ProcessIdentity, _Process] = {}
        self._looked_at: deque[ProcessIdentity] = deque()
        self._looking = False

    def add(self, process: ProcessIdentity, gone: Callable[[], None]) -> Subscription:
        """Call `gone` once, when the process is not there any more; soon, if it is not there now."""
        watched = Subscription(process, gone)
        known = self._processes.get(process)
        if known is not None:
            known.waiting.append(watched)
            return watched
        known = self._processes[process] = _Process()
        known.waiting.append(watched)
        try:
            known.descriptor = self._open(process)
        except ProcessLookupError:
            self._loop.call_at(self._loop.now, lambda: self._end(process, known))
            return watched
        if known.descriptor is None:
            self._look_at(process)
        else:
            self._loop.watch(cast(Any, known.descriptor), READ, lambda events: self._end(process, known))
        return watched

    def remove(self, watched: Subscription) -> None:
        """Call nobody for this one any more; it may have been called already."""
        known = self._processes.get(watched.process)
        if known is not None and watched in known.waiting:
            known.waiting.remove(watched)
            if not known.waiting:
                self._drop(watched.process, known)

    def close(self) -> None:
        """Watch nothing any more."""
        for process, known in list(self._processes.items()):
            self._drop(process, known)

    def _open(self, process: ProcessIdentity) -> int | None:
        """A pidfd of this very process, None if there is none to be had. Raises ProcessLookupError if it is gone."""
        descriptor = open_pidfd(process.pid) if self._free > 0 else None
        # After that: the descriptor stays with its process, the number may have been another's before.
        if exists(process.pid, process.start) is False:
            if descriptor is not None:
                os.close(descriptor)
            raise ProcessLookupError
        if descriptor is not None:
            self._free -= 1
        return descriptor

    def _drop(self, process: ProcessIdentity, known: _Process) -> None:
        del self._processes[process]
        if known.descriptor is not None:
            self._loop.unwatch(cast(Any, known.descriptor))
            os.close(known.descriptor)
            self._free += 1

    def _end(self, process: ProcessIdentity, known: _Process) -> None:
        if self._processes.get(process) is known:  # else all who waited were removed
            self._drop(process, known)
            for watched in known.waiting:
                watched.gone()

    # Looking in turn

    def _look_at(self, process: ProcessIdentity) -> None:
        self._looked_at.append(process)
        if not self._looking:
            self._looking = True
            self._loop.call_at(self._loop.now + _PAUSE, self._look)

    def _look(self) -> None:
        for _ in range(min(len(self._looked_at), _AT_ONCE)):
            process = self._looked_at.popleft()
            known = self._processes.get(process)
            if known is None or known.descriptor is not None:
                continue
            if exists(process.pid, process.start) is False:
                self._end(process, known)
            else:
                self._looked_at.append(process)
        self._looking = bool(self._looked_at)
        if self._looking:
            self._loop.call_at(self._loop.now + _PAUSE, self._look)
