"""Schedule of questions about processes: each in its turn, and never more a second than a budget allows.

Each process is due REPEAT seconds after it was last looked at, so that the line is in the order of the times by
itself; one that is in a hurry goes in front. However many there are, a look costs the same, and there are at most
BUDGET in any second: with more than BUDGET times REPEAT processes the rounds take longer.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from ..model import HolderProcess

BUDGET = 100  # looks a second: some milliseconds of the loop, however many locks there are
REPEAT = 2.0  # seconds from one look at a process to the next: how late a death on another host is noticed


class PollSchedule:
    """The processes to look at. Times are seconds, monotonic."""

    def __init__(self) -> None:
        self._line: OrderedDict[HolderProcess, float] = OrderedDict()  # when each is due
        self._urgent: OrderedDict[HolderProcess, None] = OrderedDict()
        self._next_look = 0.0  # when the budget allows one

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, process: HolderProcess) -> bool:
        return process in self._line

    def add(self, process: HolderProcess, now: float) -> None:
        """Look at a process from now on; the first time in REPEAT seconds, since it was just heard of."""
        if process not in self._line:
            self._line[process] = now + REPEAT

    def remove(self, process: HolderProcess) -> None:
        """Look at it no more."""
        self._line.pop(process, None)
        self._urgent.pop(process, None)

    def check_soon(self, process: HolderProcess) -> None:
        """Look at it as soon as the budget allows."""
        if process in self._line:
            self._urgent[process] = None

    @property
    def next_due(self) -> float:
        """Time at which `due` has something (seconds, monotonic); infinity if no process is to be looked at."""
        if self._urgent:
            return self._next_look
        if self._line:
            return max(self._next_look, next(iter(self._line.values())))
        return inf

    def due(self, now: float) -> HolderProcess | None:
        """The process to look at now, if any; call it again until there is none."""
        if now < self.next_due:
            return None
        process = next(iter(self._urgent)) if self._urgent else next(iter(self._line))
        self._urgent.pop(process, None)
        self._line[process] = now + REPEAT
        self._line.move_to_end(process)
        self._next_look = now + 1 / BUDGET  # what was left unused for a while does not add up
        return process
