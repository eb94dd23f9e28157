"""What a lock service may answer, as states and steps for the search: the specification of the real one, in short.

Locks: names that have one holder or none; who waits is nowhere. It explains histories of clients of any kind, with
requests for one name or several.

Queue: one name whose waiters are served in the order in which they were told that they wait. A wait is two
operations there: LOCK, which ends with ("queued",), and OBTAINED.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from .history import BREAK, CHECK, GONE, KEEPER, LOCK, OBTAINED, STATUS, UNLOCK, Operation


class Held(NamedTuple):
    """Who holds a name. The token is None if nobody has been told it."""

    client: str
    token: Optional[int]


class Locks(NamedTuple):
    """The names that are held, in their order, and the greatest token that was told."""

    held: tuple[tuple[str, Held], ...] = ()
    last: int = 0

    def step(self, operation: Operation) -> Locks | None:
        """The state after an operation, or None if it can't be done or does not have that result."""
        held = dict(self.held)
        client, result = operation.client, operation.result
        mine = [name for name in operation.names if name in held and held[name].client == client]
        if operation.action == LOCK:
            free = [name for name in operation.names if name not in held]
            return self._lock(operation, mine[0] if mine else free[0] if free else None)
        if operation.action == UNLOCK:
            if result is not None and (result == ("freed",)) != bool(mine):
                return None
            return self._without(mine)
        if operation.action == GONE:
            return self._without(mine) if mine else None
        if operation.action == BREAK:
            broken = [name for name in operation.names if name in held]
            if result is not None and result != ("broke", *(held[name].client for name in broken)):
                return None
            return self._without(broken)
        standing = held.get(operation.names[0])
        if result is None or _is_right(operation, standing):
            return self
        return None

    def _lock(self, operation: Operation, name: str | None) -> Locks | None:
        result = operation.result
        if result == ("busy",) or name is None:
            return self if result == ("busy",) and name is None else None
        held = dict(self.held)
        known = held.get(name)
        if result is None:
            token, last = None if known is None else known.token, self.last
        else:
            token = told(result, name, None if known is None else known.token, self.last)
            if token is None:
                return None
            last = max(token, self.last)
        held[name] = Held(operation.client, token)
        return Locks(tuple(sorted(held.items())), last)

    def _without(self, names: list[str]) -> Locks:
        return Locks(tuple((name, held) for name, held in self.held if name not in names), self.last)


class Queue(NamedTuple):
    """One name: who holds it, who waits in which order, and the greatest token that was told."""

    holder: Optional[Held] = None
    waiting: tuple[str, ...] = ()
    last: int = 0

    def step(self, operation: Operation) -> Queue | None:
        """As for Locks."""
        client, result, action = operation.client, operation.result, operation.action
        is_mine = self.holder is not None and self.holder.client == client
        if action == LOCK and (self.holder is None or is_mine):
            return self._hold(operation)
        if action == LOCK:
            if result not in (None, ("queued",)):
                return self if result == ("busy",) else None
            # A second LOCK of the same client takes the place of the first.
            return self if client in self.waiting else self._replace(waiting=(*self.waiting, client))
        if action == OBTAINED:
            return self._hold(operation) if is_mine else None
        if action in (UNLOCK, GONE):
            if not is_mine and client not in self.waiting:
                return self if action == UNLOCK and result in (None, ("lost",)) else None
            if result == ("lost",):
                return None
            return self._next() if is_mine else self._leave(client)
        if action == BREAK:
            owners = () if self.holder is None else (self.holder.client,)
            return self._next() if result in (None, ("broke", *owners)) else None
        return self if result is None or _is_right(operation, self.holder) else None

    def _hold(self, operation: Operation) -> Queue | None:
        """The client holds it, or is told that it does."""
        known = None if self.holder is None else self.holder.token
        if operation.result is None:
            return self._replace(holder=Held(operation.client, known))
        token = told(operation.result, operation.names[0], known, self.last)
        return None if token is None else Queue(Held(operation.client, token), self.waiting, max(token, self.last))

    def _next(self) -> Queue:
        holder = Held(self.waiting[0], None) if self.waiting else None
        return self._replace(holder=holder, waiting=self.waiting[1:])

    def _leave(self, client: str) -> Queue:
        return self._replace(waiting=tuple(other for other in self.waiting if other != client))


def told(result: tuple[str | int | None, ...], name: str, known: int | None, last: int) -> int | None:
    """The token of a ("granted", NAME, TOKEN), if that is right: the one that was told before, or a greater one."""
    if result[:2] != ("granted", name) or not isinstance(result[2], int):
        return None
    return result[2] if result[2] == known or (known is None and result[2] > last) else None


def _is_right(operation: Operation, held: Held | None) -> bool:
    if operation.action == STATUS:
        return operation.result == ("owner", None if held is None or held.client.startswith(KEEPER) else held.client)
    assert operation.action == CHECK and operation.result is not None, operation
    stands = held is not None and held.token == operation.result[1]
    # A grant whose token nobody was told is not the one that is asked about.
    return operation.result[2] == int(stands)
