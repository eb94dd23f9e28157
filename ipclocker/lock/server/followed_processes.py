"""Which processes are watched: those that grants depend on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from math import inf

from ...net.loop import Loop
from ..model import Grant, HolderProcess
from .holder_monitor import HolderMonitor

_FOLLOW_AFTER = 0.05  # seconds: most locks of a command that ends at once are given back before
_AT_ONCE = 2_000  # changes that are followed in one turn: some 20 ms, when all that was kept is new


class FollowedProcesses:
    """Has the monitor watch the processes that locks have come to depend on, and no more those that none depends on.

    Not at once: many locks are given back before, and all others have their answers first.
    """

    def __init__(self, loop: Loop, monitor: HolderMonitor) -> None:
        self._loop = loop
        self._monitor = monitor
        # Tokens of grants that have come to depend on a process or do no more, which is not followed yet.
        self._changed: dict[int, object] = {}
        self._due = inf  # when they are
        self._followed: dict[int, HolderProcess] = {}  # by token, the process that a grant depends on

    def note(self, changed: Mapping[int, object]) -> None:
        """Note grants, by token, that have come to be, have changed, or have ended."""
        self._changed.update(changed)

    def tick(self, now: float, grants: Mapping[int, Grant]) -> float:
        """Follow the changes when that is due; `grants` are those that stand, by token. Return when it is due next."""
        if self._changed and self._due == inf:
            self._due = now + _FOLLOW_AFTER
        elif self._due <= now:
            self._follow(grants, list(islice(self._changed, _AT_ONCE)))
            self._due = now if self._changed else inf
        return self._due

    def follow(self, grants: Mapping[int, Grant]) -> None:
        """Follow the changes now."""
        self._due = inf
        self._follow(grants, list(self._changed))

    def _follow(self, grants: Mapping[int, Grant], changed: list[int]) -> None:
        no_more = []
        for token in changed:
            del self._changed[token]
            before = self._followed.get(token)
            grant = grants.get(token)
            after = None if grant is None else grant.process
            if before == after:
                continue
            if before is not None:
                del self._followed[token]
                no_more.append(before)
            if after is not None:
                self._followed[token] = after
                self._monitor.watch(after, self._loop.now if grant is None or grant.heard is None else grant.heard)
        for process in no_more:  # last, since one that has another lock by now is watched on
            self._monitor.unwatch(process)
