"""Times at which grants have to be looked at, in a heap, so that time costs nothing for each lock.

A grant has one valid entry at most (`Grant.expiry`). One that it has no more stays in the heap as stale until it comes
to the top, or until half of all are stale: then these are swept out.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from ..model import Expiry, Grant

_COMPACT_ABOVE = 512  # stale entries are swept out when they are more than this, and more than half


class Expiries:
    """The heap. Times are seconds, monotonic."""

    def __init__(self) -> None:
        self.heap: list[Expiry] = []  # the first is the earliest; it may be stale
        self._number = 0
        self._stale = 0

    def look_by(self, grant: Grant, when: float) -> None:
        """See to it that a grant is looked at, at `when` or earlier; infinity: it need not be."""
        expiry = grant.expiry
        if when >= (inf if expiry is None else expiry[0]):
            return
        if expiry is not None:
            self.drop(grant)
        self._number += 1
        grant.expiry = expiry = (when, self._number, grant)
        heappush(self.heap, expiry)

    def drop(self, grant: Grant) -> None:
        """Look no more at a grant. That costs O(1); the sweeps cost no more than the entries did."""
        if grant.expiry is None:
            return
        grant.expiry = None
        self._stale += 1
        if self._stale > _COMPACT_ABOVE and self._stale * 2 > len(self.heap):
            self.heap = [expiry for expiry in self.heap if expiry[2].expiry is expiry]
            heapify(self.heap)
            self._stale = 0

    def pop_due(self, now: float) -> Grant | None:
        """Return a grant that is to be looked at now, which has no entry any more; None if there is none."""
        while self.heap and self.heap[0][0] <= now:
            expiry = heappop(self.heap)
            grant = expiry[2]
            if grant.expiry is expiry:
                grant.expiry = None
                return grant
            self._stale -= 1
        return None
