"""Who may hold a lock together with whom.

Each holder says how many holders there may be while it is one of them, its `slots`: 1 for a plain lock, N for N at a
time, 0 for any number. One more gets in if there are fewer holders than its own number, and than that of each holder
that is there. So readers (0) share a lock, a writer (1) has it alone, and four licences are four holders of 4 slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf

from ..model import Grant, Owner, Record


class Holders:
    """The grants of one lock that several may hold, from the oldest to the newest; never empty for long."""

    __slots__ = ("_by_owner", "_grants", "_least", "_limits")

    def __init__(self) -> None:
        self._grants: dict[int, Grant] = {}
        self._by_owner: dict[Owner, Grant] = {}
        self._limits: Counter[int] = Counter()  # how many holders say each number of slots
        self._least = inf  # of them

    def __len__(self) -> int:
        return len(self._grants)

    def has_room(self, slots: int) -> bool:
        """Tell whether one more, of so many slots, may hold the lock as well."""
        return len(self._grants) < min(self._least, _limit(slots))

    def add(self, grant: Grant) -> None:
        """Add a grant, without asking whether there is room."""
        self._grants[grant.token] = grant
        self._by_owner[grant.owner] = grant
        self._limits[grant.slots] += 1
        self._least = min(self._least, _limit(grant.slots))

    def remove(self, grant: Grant) -> None:
        """Remove a grant, which is there."""
        del self._grants[grant.token]
        if self._by_owner.get(grant.owner) is grant:
            del self._by_owner[grant.owner]
        self._limits[grant.slots] -= 1
        if not self._limits[grant.slots]:
            del self._limits[grant.slots]
            self._least = min(map(_limit, self._limits), default=inf)  # different numbers, of which there are few

    def first(self) -> Grant:
        """Return the oldest one."""
        return next(iter(self._grants.values()))

    def all(self) -> list[Grant]:
        """List them."""
        return list(self._grants.values())

    def of(self, owner: Owner) -> Grant | None:
        """Return the owner's."""
        return self._by_owner.get(owner)

    def change_owner(self, grant: Grant, owner: Owner) -> None:
        """Give a grant to another owner."""
        if self._by_owner.get(grant.owner) is grant:
            del self._by_owner[grant.owner]
        grant.owner = owner
        self._by_owner[owner] = grant


def overfull(records: Iterable[Record]) -> bytes | None:
    """Return the name of a lock with more holders than one of them allows; None if there is none."""
    count: Counter[bytes] = Counter()
    least: dict[bytes, float] = {}
    for record in records:
        count[record.name] += 1
        least[record.name] = min(least.get(record.name, inf), _limit(record.slots))
    return next((name for name, holders in count.items() if holders > least[name]), None)


def _limit(slots: int) -> float:
    return slots or inf
