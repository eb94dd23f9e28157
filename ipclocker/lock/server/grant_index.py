"""The grants that stand: by name, by token, by the process that they depend on, and in the order in which they came."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..model import Grant, HolderProcess
from .held_list import HeldList


class GrantIndex:
    """All grants of a table. A name has one of them at most; no call costs more for there being many."""

    def __init__(self) -> None:
        self.by_name: dict[bytes, Grant] = {}
        self.by_token: dict[int, Grant] = {}
        self._by_process: dict[tuple[bytes, int], dict[int, Grant]] = {}
        self._in_order = HeldList()

    def add(self, grant: Grant) -> None:
        """Add the grant of a lock that is free."""
        self.by_name[grant.name] = self.by_token[grant.token] = grant
        self._in_order.append(grant)
        if grant.process is not None:
            self._add_process(grant, grant.process)

    def remove(self, grant: Grant) -> None:
        """Remove the grant of a lock that is free from now on."""
        del self.by_name[grant.name], self.by_token[grant.token]
        self._in_order.remove(grant)
        if grant.process is not None:
            self._remove_process(grant, grant.process)

    def replace(self, old: Grant, new: Grant) -> None:
        """Put a grant in the place of that of the holder before, whose lock it has."""
        del self.by_token[old.token]
        self.by_name[new.name] = self.by_token[new.token] = new
        self._in_order.replace(old, new)
        if old.process is not None:
            self._remove_process(old, old.process)
        if new.process is not None:
            self._add_process(new, new.process)

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
        """Go through all of them while they change: each lock that is held all the while comes once."""
        return self._in_order.walk()

    def _add_process(self, grant: Grant, process: HolderProcess) -> None:
        self._by_process.setdefault((process.host, process.pid), {})[grant.token] = grant

    def _remove_process(self, grant: Grant, process: HolderProcess) -> None:
        key = (process.host, process.pid)
        del self._by_process[key][grant.token]
        if not self._by_process[key]:
            del self._by_process[key]
