"""Lock table: the holder of each lock, its waiters, and the time when a hold ends; without sockets, clock or disk.

A lock has a name and at most one grant. A grant belongs to an owner, which is a user and a session. Each name that is
held may have a queue of requests; a request waits in the queues of all of its names and leaves them together, when the
first of the names comes free or when its client goes.

The rules that hold at all times, and that the tests check on a model:
- a name has one grant or none;
- a name that is free has no queue: what comes free goes at once to the first in the queue whose client is there;
- each grant's token is greater than all before it;
- a grant with a hold time, or one that waits for its confirmation, has exactly one valid entry in the heap of
  expiries, so that time costs nothing per lock and nothing is ever scanned.

A hold time that its holder renews is a lease. When it runs out the grant does not end yet: it is overdue, and somebody
has to look whether its process lives. If it does (mark_holder_alive), the lock stays; else the grant ends
(expire_overdue).

`now` is in seconds on the server's monotonic clock. What a call has changed comes back as Effects.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from copy import copy
from heapq import heapify, heappop, heappush
from math import inf
from typing import Callable

from ..model import Expiry, Grant, HolderProcess, LockRequest, Owner, Record
from .effects import BeforeImages, Effects

CONFIRM_WITHIN = 10.0  # seconds: a client that lives confirms in milliseconds; one that is swapped out needs some
_COMPACT_ABOVE = 512  # stale expiries are swept out when they are more than this, and more than half

_NOTHING = Effects()  # of a call that has changed nothing


class LockTable:
    """All locks of one server. `held` is what each name is held by, `grants` the same by token.

    `last_token` is the greatest token given so far. `is_present` says of a waiting request whether its client is still
    there; it is asked just before a grant, so that no lock goes to a client that has hung up meanwhile.
    """

    def __init__(self, last_token: int = 0, is_present: Callable[[LockRequest], bool] = lambda request: True) -> None:
        self.held: dict[bytes, Grant] = {}
        self.grants: dict[int, Grant] = {}
        self.last_token = last_token
        self._is_present = is_present
        self._queues: dict[bytes, OrderedDict[Owner, LockRequest]] = {}
        self._by_process: dict[tuple[bytes, int], dict[int, Grant]] = {}
        self._expiries: list[Expiry] = []
        self._expiry_number = 0
        self._stale = 0

    # Asking and giving back

    def acquire(self, request: LockRequest, now: float) -> tuple[Grant | None, Effects]:
        """Grant the first free name, or renew what the owner holds of them already; None: all are busy."""
        free = None
        for name in request.names:
            grant = self.held.get(name)
            if grant is None:
                if free is None:
                    free = name
            elif grant.owner == request.owner:
                return grant, self._change_terms(grant, request, now)
        if free is None:
            return None, _NOTHING
        grant = self._grant(free, request, now)
        effects = Effects()
        effects.before_images = {grant.token: None}
        return grant, effects

    def enqueue(self, request: LockRequest, now: float, address: str = "") -> Effects:
        """Queue a request whose names are all busy; it takes the place of one that the same owner has waiting.

        `address` is where its client is connected from, for people to read.
        """
        request.queued_at = now
        request.address = address
        owner = request.owner
        replaced = []
        for name in request.names:
            queue = self._queues.setdefault(name, OrderedDict())
            if owner in queue:
                replaced.append(queue[owner])
            queue[owner] = request  # an assignment to a key that is there keeps its place
        if not replaced:
            return _NOTHING
        effects = Effects()
        for old in dict.fromkeys(replaced):
            self.dequeue(old)
            effects.add_superseded(old)
        return effects

    def dequeue(self, request: LockRequest) -> bool:
        """Take a request off all queues; False if it waited in none. It may be called at any time, and again."""
        owner = request.owner
        waited = False
        for name in request.names:
            queue = self._queues.get(name)
            if queue is not None and queue.get(owner) is request:
                del queue[owner]
                waited = True
                if not queue:
                    del self._queues[name]
        return waited

    def release(self, owner: Owner, names: Iterable[bytes], now: float) -> Effects:
        """Free those of the names that the owner holds, and take the owner off the queues of the others."""
        effects = Effects()
        for name in names:
            grant = self.held.get(name)
            if grant is None:
                continue
            if grant.owner == owner:
                self._free(grant, now, effects)
                continue
            queue = self._queues.get(name)
            if queue is not None and owner in queue:
                waiting = queue[owner]
                self.dequeue(waiting)
                effects.add_superseded(waiting)
        return effects

    def end(self, grants: Iterable[Grant], now: float) -> Effects:
        """End these grants for any holder, as far as they still stand; those that did are `ended`."""
        effects = Effects()
        for grant in grants:
            if self.grants.get(grant.token) is grant:
                effects.add_ended(grant)
                self._free(grant, now, effects)
        return effects

    def break_locks(self, names: Iterable[bytes], now: float) -> Effects:
        """Free the names for any holder."""
        return self.end([grant for grant in map(self.held.get, names) if grant is not None], now)

    def recall(self, names: Iterable[bytes]) -> list[Grant]:
        """Mark the leases among these locks as asked for back, so that they can't be renewed; those grants."""
        leases = [grant for grant in map(self.held.get, names) if grant is not None and grant.lease]
        for grant in leases:
            grant.recalled = True
        return leases

    def report_dead(self, host: bytes, pid: int, address: str, now: float) -> tuple[Effects, list[HolderProcess]]:
        """Free the locks of a process that is said to be dead, if that comes from the address that took them.

        Of the other locks the processes are returned: there is reason to look at them. So there is at those known by
        more than their number: who says it may be in another pid namespace of that address, and see nothing there.
        """
        dead, suspects = [], []
        for grant in self._by_process.get((host, pid), {}).values():
            assert grant.process is not None
            if grant.process.address == address and not grant.process.boot and not self._outlasts(grant):
                dead.append(grant)
            else:
                suspects.append(grant.process)
        return self.end(dead, now), suspects

    def release_of(self, process: HolderProcess, now: float) -> Effects:
        """Free the locks of a process that is known to be gone.

        Leases stay until they run out: what the process has started may have to be ended yet (process/watchdog.py).
        """
        grants = self._by_process.get((process.host, process.pid), {}).values()
        return self.end([grant for grant in grants if grant.process == process and not self._outlasts(grant)], now)

    def _outlasts(self, grant: Grant) -> bool:
        """Tell whether it is a lease under which something was started, and that has not run out."""
        return grant.lease and grant.confirm_by == inf and grant.deadline < inf

    # One grant, named by its token

    def current(self, name: bytes, token: int) -> Grant | None:
        """Return the grant with this name and token, if it still stands."""
        grant = self.grants.get(token)
        return grant if grant is not None and grant.name == name else None

    def confirm(self, name: bytes, token: int) -> Effects:
        """Note that a client has received its waited grant."""
        grant = self.current(name, token)
        if grant is None or grant.confirm_by == inf:
            return _NOTHING
        effects = _changed(grant)
        grant.confirm_by = inf
        return effects

    def renew(self, name: bytes, token: int, now: float) -> tuple[Grant | None, Effects]:
        """Start the hold time of a grant again if it still stands; who renews it has received it.

        A grant that is returned with `recalled` set was not renewed.
        """
        grant = self.current(name, token)
        effects = _NOTHING
        if grant is None or grant.recalled:
            return grant, effects
        if grant.outlived or grant.confirm_by < inf:
            effects = _changed(grant)
            grant.outlived = False
            grant.confirm_by = inf
        if grant.hold:
            grant.deadline = now + grant.hold
            self._expire_by(grant, grant.deadline)
        return grant, effects

    # A lease that has run out, once somebody has looked at its process; one that was renewed meanwhile is left alone

    def mark_holder_alive(self, grant: Grant) -> Effects:
        """Let the lock stay, since the process lives; from now on nobody's silence ends it."""
        if not self._is_overdue(grant):
            return _NOTHING
        effects = _changed(grant)
        grant.outlived = True
        return effects

    def expire_overdue(self, grant: Grant, now: float) -> Effects:
        """End the grant, since nobody knows its process to live."""
        return self.end([grant] if self._is_overdue(grant) else [], now)

    def _is_overdue(self, grant: Grant) -> bool:
        stands = self.grants.get(grant.token) is grant
        # With a hold time there is a deadline, until a lease has passed it. Without, there never is: it has no end.
        return stands and grant.hold > 0 and grant.deadline == inf and not grant.outlived

    # Kept elsewhere

    def restore(self, records: Iterable[Record], now: float, clock: float) -> None:
        """Begin with the grants that were kept; `clock` as for `Grant.record`. All times begin again, in full."""
        for record in records:
            grant = Grant.from_record(record, now, clock)
            if not record.confirmed:
                grant.confirm_by = now + CONFIRM_WITHIN
            self._put_back(grant)

    def rollback(self, images: BeforeImages, now: float) -> list[LockRequest]:
        """Take changes back that could not be kept: what stood before stands again, its hold time from the start.

        The requests that waited for what is free thereby are returned; they wait no more, since nobody would wake them.
        """
        freed = []
        for token in images:
            grant = self.grants.pop(token, None)
            if grant is not None:
                del self.held[grant.name]
                self._let_go(grant)
                freed.append(grant.name)
        for before in images.values():
            if before is not None:
                before.expiry = None
                before.deadline = now + before.hold if before.hold and not before.outlived else inf
                self._put_back(before)
        stranded = dict.fromkeys(request for name in freed if name not in self.held for request in self.waiters(name))
        for request in stranded:
            self.dequeue(request)
        return list(stranded)

    # Looking

    def waiters(self, name: bytes) -> list[LockRequest]:
        """List the requests that wait for a lock, in the order in which they are served."""
        return list(self._queues.get(name, {}).values())

    def standing(self, owner: Owner, names: Iterable[bytes]) -> Grant | None:
        """Return the grant that STATUS speaks of: the owner's own if there is one, else that of the first held name."""
        first = None
        for name in names:
            grant = self.held.get(name)
            if grant is not None:
                if grant.owner == owner:
                    return grant
                first = first or grant
        return first

    # Time

    @property
    def next_expiry(self) -> float:
        """Earliest time at which `expire` has something to do (seconds, monotonic); infinity if nothing has an end."""
        return self._expiries[0][0] if self._expiries else inf

    def expire(self, now: float) -> Effects:
        """End what was held, or left unconfirmed, for too long.

        A confirmed lease whose process is known is `overdue` instead: it has no end until somebody has looked.
        """
        effects = Effects()
        while self._expiries and self._expiries[0][0] <= now:
            expiry = heappop(self._expiries)
            grant = expiry[2]
            if grant.expiry is not expiry:
                self._stale -= 1
                continue
            grant.expiry = None
            due = min(grant.deadline, grant.confirm_by)
            if due <= now:
                if grant.lease and grant.process is not None and grant.confirm_by == inf:
                    grant.deadline = inf
                    effects.add_overdue(grant)
                else:
                    effects.add_ended(grant)
                    self._free(grant, now, effects)
            elif due < inf:  # it was renewed since: the entry moves, so a renewal itself costs nothing here
                self._set_expiry(grant, due)
        return effects

    # Inside

    def _grant(self, name: bytes, request: LockRequest, now: float) -> Grant:
        self.last_token = token = self.last_token + 1
        self.held[name] = self.grants[token] = grant = Grant(name, token, request, now)
        if grant.hold:
            self._set_expiry(grant, grant.deadline)
        if grant.process is not None:
            self._index(grant)
        return grant

    def _change_terms(self, grant: Grant, request: LockRequest, now: float) -> Effects:
        """Start the hold time again, under the terms of the owner's new request."""
        effects = _NOTHING
        if grant.recalled:
            return effects
        terms = (request.hold, request.lease, request.process, request.command)
        if grant.outlived or grant.confirm_by < inf or terms != (grant.hold, grant.lease, grant.process, grant.command):
            effects = _changed(grant)
            grant.outlived = False
            grant.confirm_by = inf
            self._unindex(grant)
            grant.hold, grant.lease, grant.process, grant.command = terms
            self._index(grant)
        grant.deadline = now + request.hold if request.hold else inf
        self._expire_by(grant, grant.deadline)
        return effects

    def _free(self, grant: Grant, now: float, effects: Effects) -> None:
        """Free a lock, and grant it to the first in its queue whose client is there."""
        name = grant.name
        del self.held[name], self.grants[grant.token]
        self._let_go(grant)
        if effects.before_images:
            effects.before_images.setdefault(grant.token, grant)
        else:
            effects.before_images = {grant.token: grant}
        while name in self._queues:
            request = next(iter(self._queues[name].values()))
            self.dequeue(request)
            if self._is_present(request):
                self._grant_waited(name, request, now, effects)
                return

    def _grant_waited(self, name: bytes, request: LockRequest, now: float, effects: Effects) -> None:
        grant = self._grant(name, request, now)
        if request.confirms:
            grant.confirm_by = now + CONFIRM_WITHIN
            self._expire_by(grant, grant.confirm_by)
        effects.before_images[grant.token] = None
        effects.add_granted(request, grant)

    def _let_go(self, grant: Grant) -> None:
        if grant.expiry is not None:
            self._drop_expiry(grant)
        if grant.process is not None:
            self._unindex(grant)

    def _put_back(self, grant: Grant) -> None:
        self.held[grant.name] = self.grants[grant.token] = grant
        self._index(grant)
        due = min(grant.deadline, grant.confirm_by)
        if due < inf:
            self._set_expiry(grant, due)

    def _index(self, grant: Grant) -> None:
        if grant.process is not None:
            key = (grant.process.host, grant.process.pid)
            self._by_process.setdefault(key, {})[grant.token] = grant

    def _unindex(self, grant: Grant) -> None:
        if grant.process is not None:
            key = (grant.process.host, grant.process.pid)
            del self._by_process[key][grant.token]
            if not self._by_process[key]:
                del self._by_process[key]

    def _expire_by(self, grant: Grant, when: float) -> None:
        """See to it that `expire` looks at the grant at `when` or earlier."""
        if when < (inf if grant.expiry is None else grant.expiry[0]):
            if grant.expiry is not None:
                self._drop_expiry(grant)
            self._set_expiry(grant, when)

    def _set_expiry(self, grant: Grant, when: float) -> None:
        self._expiry_number += 1
        grant.expiry = expiry = (when, self._expiry_number, grant)
        heappush(self._expiries, expiry)

    def _drop_expiry(self, grant: Grant) -> None:
        """Leave a grant's entry in the heap as stale; sweep when half of them are, so that each costs O(1)."""
        grant.expiry = None
        self._stale += 1
        if self._stale > _COMPACT_ABOVE and self._stale * 2 > len(self._expiries):
            self._expiries = [expiry for expiry in self._expiries if expiry[2].expiry is expiry]
            heapify(self._expiries)
            self._stale = 0


def _changed(grant: Grant) -> Effects:
    """Return the effects of a call that is about to change a grant."""
    effects = Effects()
    effects.before_images = {grant.token: copy(grant)}
    return effects
