"""Notices when a process of this host is gone.

Each process has a pidfd in the event loop, which becomes readable when it ends (pidfd_open(2), Linux 5.3): that
costs nothing while it lives. Where there are none, or no descriptor is to spare, processes are polled in turn: each
four times a second, or less often if there are more than a thousand.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from typing import Callable, NamedTuple

from ..net.loop import READ, Loop
from .identity import ProcessIdentity, exists, open_pidfd

_PAUSE = 0.25  # seconds between two rounds of polling
_MOST_POLLED = 250  # processes in a round, at 20 us each: 5 ms in which the loop does nothing else


class Subscription(NamedTuple):
    """A wish to hear of the end of one process; `ExitWatcher.remove` takes it back."""

    process: ProcessIdentity
    gone: Callable[[], None]


class _Entry:
    """A process that is watched: for whom, and by which pidfd; None if it is polled."""

    __slots__ = ("descriptor", "subscriptions")

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self.subscriptions: list[Subscription] = []


class ExitWatcher:
    """Watches processes of this kernel and pid namespace (see identity.is_own) until they are gone.

    It takes `most` descriptors at most; half of those that are allowed if that is not given. Callbacks come in a turn
    of the loop, never within `add`.
    """

    def __init__(self, loop: Loop, most: int | None = None) -> None:
        self._loop = loop
        self._free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 if most is None else most
        self._entries: dict[ProcessIdentity, _Entry] = {}
        self._polled: deque[ProcessIdentity] = deque()
        self._is_polling = False

    def add(self, process: ProcessIdentity, gone: Callable[[], None]) -> Subscription:
        """Call `gone` once, when the process is not there any more; soon, if it is not there now."""
        subscription = Subscription(process, gone)
        entry = self._entries.get(process)
        if entry is not None:
            entry.subscriptions.append(subscription)
            return subscription
        entry = self._entries[process] = _Entry()
        entry.subscriptions.append(subscription)
        try:
            entry.descriptor = self._open(process)
        except ProcessLookupError:
            self._loop.call_at(self._loop.now, lambda: self._end(process, entry))
            return subscription
        if entry.descriptor is None:
            self._polled.append(process)
            self._poll_later()
        else:
            self._loop.watch(entry.descriptor, READ, lambda events: self._end(process, entry))
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Do not call this one any more; nothing, if it was called already."""
        entry = self._entries.get(subscription.process)
        if entry is not None and subscription in entry.subscriptions:
            entry.subscriptions.remove(subscription)
            if not entry.subscriptions:
                self._drop(subscription.process, entry)

    def close(self) -> None:
        """Stop watching all processes; nobody is called any more."""
        for process, entry in list(self._entries.items()):
            self._drop(process, entry)

    def _open(self, process: ProcessIdentity) -> int | None:
        """Open a pidfd of this very process; None if that can't be had. Raises ProcessLookupError if it is gone."""
        descriptor = open_pidfd(process.pid) if self._free > 0 else None
        # After that: the descriptor stays with its process, the number may have been another's before.
        if exists(process.pid, process.start) is False:
            if descriptor is not None:
                os.close(descriptor)
            raise ProcessLookupError
        if descriptor is not None:
            self._free -= 1
        return descriptor

    def _drop(self, process: ProcessIdentity, entry: _Entry) -> None:
        del self._entries[process]
        if entry.descriptor is not None:
            self._loop.unwatch(entry.descriptor)
            os.close(entry.descriptor)
            self._free += 1

    def _end(self, process: ProcessIdentity, entry: _Entry) -> None:
        if self._entries.get(process) is entry:  # else all subscriptions were removed
            self._drop(process, entry)
            for subscription in entry.subscriptions:
                subscription.gone()

    def _poll_later(self) -> None:
        if self._polled and not self._is_polling:
            self._is_polling = True
            self._loop.call_at(self._loop.now + _PAUSE, self._poll)

    def _poll(self) -> None:
        for _ in range(min(len(self._polled), _MOST_POLLED)):
            process = self._polled.popleft()
            entry = self._entries.get(process)
            if entry is None or entry.descriptor is not None:
                continue
            if exists(process.pid, process.start) is False:
                self._end(process, entry)
            else:
                self._polled.append(process)
        self._is_polling = False
        self._poll_later()
