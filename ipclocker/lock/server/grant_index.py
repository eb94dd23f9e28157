"""The grants that stand: by name, by token, by the process that they depend on, and in the order in which they came.

Nearly all locks have one holder and may have no more. Those that may have more are in `shared` as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..model import Grant, HolderProcess, Owner
from .held_list import HeldList
from .lock_modes import Holders


class GrantIndex:
    """All grants of a table; no call costs more for there being many.

    `by_name` has the oldest of each lock. A lock is in `shared` from the moment when one holds it who lets others in.
    """

    def __init__(self) -> None:
        self.by_name: dict[bytes, Grant] = {}
        self.by_token: dict[int, Grant] = {}
        self.shared: dict[bytes, Holders] = {}
        self._by_process: dict[tuple[bytes, int], dict[int, Grant]] = {}
        self._in_order = HeldList()

    def add(self, grant: Grant, before: Grant | None = None) -> None:
        """Add a grant. `before`: it has the place of this one, which was taken out, in the order."""
        name = grant.name
        self.by_token[grant.token] = grant
        if grant.slots != 1 or name in self.by_name:
            self._share(grant)
        else:
            self.by_name[name] = grant
        if before is None:
            self._in_order.append(grant)
        else:
            self._in_order.replace(before, grant)
        if grant.process is not None:
            self._add_process(grant, grant.process)

    def remove(self, grant: Grant) -> None:
        """Remove a grant."""
        self.take_out(grant)
        self._in_order.remove(grant)

    def take_out(self, grant: Grant) -> None:
        """Remove a grant, but for its place in the order: that is the next holder's, or is dropped."""
        name = grant.name
        del self.by_token[grant.token]
        holders = self.shared.get(name)
        if holders is None:
            del self.by_name[name]
        else:
            holders.remove(grant)
            if holders:
                self.by_name[name] = holders.first()
            else:
                del self.shared[name], self.by_name[name]
        if grant.process is not None:
            self._remove_process(grant, grant.process)

    def drop_place(self, grant: Grant) -> None:
        """Remove the place of a grant that was taken out."""
        self._in_order.remove(grant)

    def holders(self, name: bytes) -> list[Grant]:
        """List the grants of a lock, from the oldest to the newest."""
        shared = self.shared.get(name)
        if shared is not None:
            return shared.all()
        grant = self.by_name.get(name)
        return [] if grant is None else [grant]

    def has_room(self, name: bytes, slots: int) -> bool:
        """Tell whether one more, of so many slots, may hold a lock."""
        shared = self.shared.get(name)
        return name not in self.by_name if shared is None else shared.has_room(slots)

    def change_owner(self, grant: Grant, owner: Owner) -> None:
        """Give a grant to another owner."""
        shared = self.shared.get(grant.name)
        if shared is None:
            grant.owner = owner
        else:
            shared.change_owner(grant, owner)

    def change_process(self, grant: Grant, process: HolderProcess | None) -> None:
        """Let a grant depend on another process, or on none."""
        if grant.process is not None:
            self._remove_process(grant, grant.process)
        grant.process = process
        if process is not None:
            self._add_process(grant, process)

    def of_process(self, host: bytes, pid: int) -> Collection[Grant]:
        """Return the grants that depend on a process of that host name and number; there may be several such."""
        return self._by_process.get((host, pid), {}).values()

    def walk(self) -> Iterator[Grant]:
        """Go through all of them while they change: each that stands all the while comes once."""
        return self._in_order.walk()

    def _share(self, grant: Grant) -> None:
        holders = self.shared.get(grant.name)
        if holders is None:
            holders = self.shared[grant.name] = Holders()
            first = self.by_name.setdefault(grant.name, grant)
            if first is not grant:
                holders.add(first)
        holders.add(grant)

    def _add_process(self, grant: Grant, process: HolderProcess) -> None:
        self._by_process.setdefault((process.host, process.pid), {})[grant.token] = grant

    def _remove_process(self, grant: Grant, process: HolderProcess) -> None:
        key = (process.host, process.pid)
        del self._by_process[key][grant.token]
        if not self._by_process[key]:
            del self._by_process[key]
