"""Queues of the requests that wait: for each lock, in the order of their places.

A place says since when a request has waited, and has a number that grows with each request, which decides between two
of the same time. So one that had waited before its server was started again, and says so, comes before those that have
waited less. A request has a place in the queue of each of its names. It keeps them whatever becomes of it: who takes
its place in the queue has them, and so has the owner who comes back since he was not there when it was his turn, or
since what was granted to him could not be kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ..model import LockRequest, Owner, Place
from .recent import Recent

_KEEP_PLACES = 3600.0  # seconds for which the place of one that is not there is kept: a process may be stopped for long
_MOST_PLACES = 10_000


class WaitQueues:
    """The queues of all locks. An owner has one request at most in each of them.

    `now` is in seconds on the server's monotonic clock.
    """

    def __init__(self) -> None:
        # By name; only locks that are waited for have one. Who serves a request may look without a call.
        self.by_name: dict[bytes, OrderedDict[Owner, LockRequest]] = {}
        self._last_number = 0
        self._kept: Recent[Owner, dict[bytes, Place]] = Recent(_KEEP_PLACES, _MOST_PLACES)
        self.kept_places = self._kept.items  # by owner; nearly always empty

    def add(self, request: LockRequest, now: float) -> list[LockRequest]:
        """Queue a request; return those of its owner whose places it takes, which have left all queues."""
        owner = request.owner
        kept = self._kept.pop(owner, now) if self._kept else None
        self._last_number += 1
        last = (request.queued_at, self._last_number)
        places, replaced = [], []
        for name in request.names:
            old = self.find(name, owner)
            if old is not None:
                replaced.append(old)
                places.append(_place(old, name))
            else:
                places.append(last if kept is None else kept.get(name, last))
        request.places = tuple(places)
        self._insert(request)
        replaced = list(dict.fromkeys(replaced))
        for old in replaced:
            self.remove(old)
        return replaced

    def put_back(self, request: LockRequest) -> bool:
        """Queue a request again that has been there, at its places; False if its owner has another one there."""
        if any(self.find(name, request.owner) is not None for name in request.names):
            return False
        self._insert(request)
        return True

    def remove(self, request: LockRequest) -> bool:
        """Take a request off all queues; False if it waited in none."""
        owner = request.owner
        waited = False
        for name in request.names:
            queue = self.by_name.get(name)
            if queue is not None and queue.get(owner) is request:
                del queue[owner]
                waited = True
                if not queue:
                    del self.by_name[name]
        return waited

    def find(self, name: bytes, owner: Owner) -> LockRequest | None:
        """Return the owner's request in the queue of a lock."""
        queue = self.by_name.get(name)
        return None if queue is None else queue.get(owner)

    def first(self, name: bytes) -> LockRequest:
        """Return the request whose turn it is, in the queue of a lock that is waited for."""
        return next(iter(self.by_name[name].values()))

    def of(self, name: bytes) -> list[LockRequest]:
        """List the requests that wait for a lock, in the order in which they are served."""
        return list(self.by_name.get(name, {}).values())

    def keep_place(self, request: LockRequest, now: float) -> None:
        """Remember the places of a request that is in no queue any more, for when its owner comes back."""
        self._kept.put(request.owner, dict(zip(request.names, request.places)), now)

    def forget_place(self, owner: Owner, now: float) -> None:
        """Keep no place for an owner, who has got his lock or wants it no more."""
        self._kept.pop(owner, now)

    def _insert(self, request: LockRequest) -> None:
        owner = request.owner
        for name, place in zip(request.names, request.places):
            queue = self.by_name.setdefault(name, OrderedDict())
            is_last = owner in queue or not queue or _place(next(reversed(queue.values())), name) < place
            queue[owner] = request  # an assignment to a key that is there keeps its place
            if is_last:
                continue
            if place < _place(next(iter(queue.values())), name):  # nearly always: it had its turn already
                queue.move_to_end(owner, last=False)
            else:
                self.by_name[name] = OrderedDict(_sorted(queue.items(), name))


def _place(request: LockRequest, name: bytes) -> Place:
    return request.places[request.names.index(name)]


def _sorted(items: Iterable[tuple[Owner, LockRequest]], name: bytes) -> list[tuple[Owner, LockRequest]]:
    return sorted(items, key=lambda item: _place(item[1], name))
