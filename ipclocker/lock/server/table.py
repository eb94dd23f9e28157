"""Lock table: the holders of each lock, its waiters, and the time when a hold ends; without sockets, clock or disk.

A lock has a name and any number of grants that agree with each other (lock_modes.py), mostly one. A grant belongs to an
owner, which is a user and a session. Each name that is held may have a queue of requests; a request waits in the queues
of all of its names and leaves them together, when one of the names has room for it or when its client goes
(wait_queues.py).

The rules that hold at all times, and that the tests check on a model:
- the grants of a name agree, and an owner has one of them at most;
- nobody gets in before the first in the queue whose client is there, and that one as soon as there is room; a name that
  is free has no queue;
- each grant's token is greater than all before it;
- a grant with a hold time, or one that waits for its confirmation, is looked at on time (expiries.py), and nothing is
  ever scanned.

If the client of a grant that was waited for does not confirm it in time (it may be stopped, or its host gone), the lock
goes to the next, who has less time; after several in a row all who wait are woken at once, and the first who asks again
has the lock. So nobody waits for long for a lock that nobody uses. Who did not confirm has his place in the queue when
he comes back.

A server that begins with locks that were kept knows nothing of their queues. What is freed of these in the first
seconds is reserved until they are over, so that those who had waited come back in time, and have it in the order of how
long they have waited; and nobody joins those that hold a lock together. A reservation is a grant to an owner that
nobody can be.

`now` is in seconds on the server's monotonic clock. What a call has changed comes back as Effects.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from math import inf
from typing import Callable

from ..model import Grant, HolderProcess, LockRequest, Owner, Record
from .effects import BeforeImages, Effects
from .grant_table import CONFIRM_WITHIN, NOTHING, GrantTable, outlasts_process
from .recent import Recent
from .wait_queues import WaitQueues

RETURN_WITHIN = 2.0  # seconds from the begin with kept locks; those who waited for one look for the server meanwhile
MOST_UNCONFIRMED = 5  # in a row, which is 14 s; then all are woken
OVER_FOR = 600.0  # seconds for which a session that is over is remembered: no packet is on its way for longer
_MOST_OVER = 100_000  # sessions

RESERVED: Owner = (b"lockerd(for-those-who-waited)", b" ")  # no client can name a session with a space


class LockTable(GrantTable):
    """All locks of one server.

    `is_present` says of a waiting request whether its client is still there; it is asked just before a grant, so that
    no lock goes to a client that has hung up meanwhile.
    """

    def __init__(self, last_token: int = 0, is_present: Callable[[LockRequest], bool] = lambda request: True) -> None:
        super().__init__(last_token)
        self._is_present = is_present
        self._queues = WaitQueues()
        self._over: Recent[Owner, bool] = Recent(OVER_FOR, _MOST_OVER)
        self._reserves_until = -inf  # and of what was restored, which has tokens up to that one:
        self._restored_token = 0

    # Asking and giving back

    def acquire(self, request: LockRequest, now: float) -> tuple[Grant | None, Effects]:
        """Grant the first name that has room, or renew what the owner holds of them already; None: all are busy.

        A grant that is returned `recalled`, or with other slots than asked for, was not renewed.
        """
        owner = request.owner
        free = None
        for name in request.names:
            grant = self.held.get(name)
            if grant is None:
                if free is None:
                    free = name
            elif grant.owner == owner:
                return grant, self._change_terms(grant, request, now)
            elif name in self._index.shared:
                own = self._index.shared[name].of(owner)
                if own is not None:
                    return own, self._change_terms(own, request, now)
                if free is None and name not in self._queues.by_name and self._index.has_room(name, request.slots):
                    free = name
        if free is None:
            return None, NOTHING
        effects = Effects()
        effects.before_images = {}
        if now < self._reserves_until and free in self.held and self.held[free].token <= self._restored_token:
            self._reserve(free, now, effects)
            return None, effects
        grant = self._new_grant(free, request, now)
        if request.min_hold:
            grant.keep_until = now + request.min_hold
        self._index.add(grant)
        if grant.hold:
            self._expiries.look_by(grant, grant.deadline)
        if self._queues.kept_places:
            self._queues.forget_place(owner, now)
        effects.before_images[grant.token] = None
        if grant.process is not None:
            effects.concerns_processes = True
        return grant, effects

    def enqueue(self, request: LockRequest, now: float, address: str = "") -> Effects:
        """Queue a request whose names are all busy; it takes the place of one that the same owner has waiting.

        `address` is where its client is connected from, for people to read.
        """
        request.queued_at = now - request.waited
        request.address = address
        replaced = self._queues.add(request, now)
        if not replaced and not self._index.shared:
            return NOTHING
        effects = Effects()
        for old in replaced:
            effects.add_superseded(old)
            self._admit_behind(old, now, effects)
        self._admit_behind(request, now, effects)  # at the place of one that wanted the lock for itself, say
        return effects

    def leave(self, request: LockRequest, now: float) -> Effects:
        """Take a request off all queues, if it waits in any. It may be called at any time, and again."""
        effects = Effects()
        if self._queues.remove(request):
            self._admit_behind(request, now, effects)
        return effects

    def keep_place(self, request: LockRequest, now: float) -> None:
        """Keep the place of a request that was in the queue, for when its owner comes back."""
        self._queues.keep_place(request, now)

    def release(self, owner: Owner, names: Iterable[bytes], now: float) -> Effects:
        """Free those of the names that the owner holds, and take the owner off the queues of the others."""
        effects = Effects()
        for name in names:
            grant = self.held.get(name)
            if grant is None:
                continue
            if grant.owner != owner:
                shared = self._index.shared.get(name)
                grant = None if shared is None else shared.of(owner)
            if grant is not None:
                self._let_go(grant, now, effects)
                continue
            waiting = self._queues.find(name, owner)
            if waiting is not None:
                self._queues.remove(waiting)
                effects.add_superseded(waiting)
                self._admit_behind(waiting, now, effects)
        if self._queues.kept_places:
            self._queues.forget_place(owner, now)
        return effects

    def release_grant(self, owner: Owner, name: bytes, token: int, now: float) -> Effects:
        """Free that very grant, if it is the owner's and still stands."""
        grant = self.current(name, token)
        effects = Effects()
        if grant is not None and grant.owner == owner:
            self._let_go(grant, now, effects)
        return effects

    def end_session(self, owner: Owner, now: float) -> None:
        """Remember that an owner asks for nothing more; a LOCK of its that comes all the same is late."""
        self._over.put(owner, True, now)

    def is_over(self, owner: Owner, now: float) -> bool:
        """Tell whether the session of an owner is over, as far as it is remembered."""
        return self._over.get(owner, now) is not None

    def end(self, grants: Iterable[Grant], now: float) -> Effects:
        """End these grants for their holders, as far as they still stand; those that did are `ended`."""
        effects = Effects()
        for grant in grants:
            if self.grants.get(grant.token) is grant:
                effects.add_ended(grant)
                self._let_go(grant, now, effects)
        return effects

    def break_grants(self, grants: Iterable[Grant], now: float) -> Effects:
        """Free these grants for any holder, also those that are kept; they are `ended`."""
        effects = Effects()
        for grant in grants:
            effects.add_ended(grant)
            self._free(grant, now, effects)
        return effects

    def recall(self, grants: Iterable[Grant]) -> tuple[list[Grant], Effects]:
        """Mark the leases among these grants as asked for back, so that they can't be renewed; return them."""
        leases = [grant for grant in grants if grant.lease]
        effects = Effects()
        effects.before_images = {grant.token: copy(grant) for grant in leases if not grant.recalled}
        for grant in leases:
            grant.recalled = True
        return leases, effects

    def report_dead(self, host: bytes, pid: int, address: str, now: float) -> tuple[Effects, list[HolderProcess]]:
        """Free the locks of a process that is said to be dead, if that comes from the address that took them.

        Of the other locks the processes are returned: there is reason to look at them. So there is at those known by
        more than their number: who says it may be in another pid namespace of that address, and see nothing there.
        """
        dead, suspects = [], []
        for grant in self._index.of_process(host, pid):
            assert grant.process is not None
            if grant.process.address == address and not grant.process.boot and not outlasts_process(grant):
                dead.append(grant)
            else:
                suspects.append(grant.process)
        return self.end(dead, now), suspects

    def release_of(self, process: HolderProcess, now: float) -> Effects:
        """Free the locks of a process that is known to be gone.

        Leases stay until they run out: what the process has started may have to be ended yet (process/watchdog.py).
        """
        grants = self._index.of_process(process.host, process.pid)
        return self.end([grant for grant in grants if grant.process == process and not outlasts_process(grant)], now)

    def end_untold(self, grant: Grant, now: float) -> Effects:
        """End a grant whose client has gone before it could be told; not if the same owner was told elsewhere."""
        return self.end([grant] if grant.untold else [], now)

    def expire_overdue(self, grant: Grant, now: float) -> Effects:
        """End a lease that has run out, since nobody knows its process to live."""
        return self.end([grant] if self._is_overdue(grant) else [], now)

    # Kept elsewhere

    def restore(self, records: Iterable[Record], now: float, clock: float) -> None:
        """Begin with the grants that were kept; `clock` as for `Grant.record`. All times begin again, in full."""
        self._reserves_until = now + RETURN_WITHIN
        for record in records:
            self._restored_token = max(self._restored_token, self._restore(record, now, clock).token)

    def rollback(self, images: BeforeImages, now: float) -> tuple[list[LockRequest], list[LockRequest]]:
        """Take changes back that could not be kept: what stood before stands again, its times from the start.

        Returned are the requests that are in the queue again, each at its place, since what was granted to them was
        taken back; and those that waited for what has room thereby, which wait no more, since nobody would wake them.
        """
        freed: list[bytes] = []
        returned: list[LockRequest] = []
        stranded: dict[LockRequest, None] = {}
        for token, before in images.items():
            grant = self.grants.get(token)
            if grant is not None:
                self._index.remove(grant)
                self._expiries.drop(grant)
                freed.append(grant.name)
                if before is None and grant.request is not None:
                    if self._queues.put_back(grant.request):
                        returned.append(grant.request)
                    else:
                        stranded[grant.request] = None
        self._undo(filter(None, images.values()), now)
        freed += [name for request in returned for name in request.names]
        while freed:
            name = freed.pop()
            if name in self._queues.by_name and self._index.has_room(name, self._queues.first(name).slots):
                for request in self.waiters(name):
                    stranded[request] = None
                    self._queues.remove(request)
                    freed += request.names
        for request in stranded:
            self.keep_place(request, now)
        return [request for request in returned if request not in stranded], list(stranded)

    # Looking

    def waiters(self, name: bytes) -> list[LockRequest]:
        """List the requests that wait for a lock, in the order in which they are served."""
        return self._queues.of(name)

    def standing(self, owner: Owner, names: Iterable[bytes]) -> Grant | None:
        """Return the grant that STATUS speaks of: the owner's own if there is one, else that of the first held name.

        A reserved lock counts as free: nobody holds it.
        """
        first = None
        for name in names:
            grant = self.held.get(name)
            if grant is None:
                continue
            if grant.owner == owner:
                return grant
            if name in self._index.shared:
                own = self._index.shared[name].of(owner)
                if own is not None:
                    return own
            if first is None and grant.owner != RESERVED:
                first = grant
        return first

    # Time

    def expire(self, now: float) -> Effects:
        """End what was held, or left unconfirmed, for too long, and what was kept for long enough.

        A confirmed lease whose process is known is `overdue` instead: it has no end until somebody has looked.
        """
        effects = Effects()
        while (grant := self._expiries.pop_due(now)) is not None:
            due = min(grant.deadline, grant.confirm_by)
            if due <= now:
                if grant.lease and grant.process is not None and grant.confirm_by == inf:
                    grant.deadline = inf
                    effects.add_overdue(grant)
                elif grant.kept or grant.owner == RESERVED:
                    self._free(grant, now, effects)
                else:
                    effects.add_ended(grant)
                    self._let_go(grant, now, effects, self._pass_over(grant, now))
            elif due < inf:  # it was renewed since: the entry moves, so a renewal itself costs nothing here
                self._expiries.look_by(grant, due)
        return effects

    # Inside

    def _let_go(self, grant: Grant, now: float, effects: Effects, passed_over: int = 0) -> None:
        """End a grant for its holder; the lock is free, unless its min-hold is not over."""
        if now < grant.keep_until:
            self._keep(grant, effects)
        else:
            self._free(grant, now, effects, passed_over)

    def _free(self, grant: Grant, now: float, effects: Effects, passed_over: int = 0) -> None:
        """Let a grant stand no more, and have those whose turn it is."""
        name = grant.name
        self._take_out(grant, effects)
        if now < self._reserves_until and grant.token <= self._restored_token:
            self._reserve(name, now, effects, grant)
        elif name in self._queues.by_name:
            self._admit(name, now, effects, grant, passed_over)
        else:
            self._index.drop_place(grant)

    def _admit_behind(self, request: LockRequest, now: float, effects: Effects) -> None:
        """Have those whose turn it may be, since a request has left its queues or has come to them."""
        if self._index.shared:  # else there is no room where somebody waits
            for name in request.names:
                self._admit(name, now, effects)

    def _admit(
        self, name: bytes, now: float, effects: Effects, before: Grant | None = None, passed_over: int = 0
    ) -> None:
        """Grant a lock to the first in its queue whose clients are there, as far as there is room.

        `before`: the grant that has made room, whose place in the order is to be taken or dropped.
        """
        names = [name]
        while names:
            name = names.pop()
            while name in self._queues.by_name:
                request = self._queues.first(name)
                if not self._index.has_room(name, request.slots):
                    break
                self._queues.remove(request)
                if self._index.shared and len(request.names) > 1:
                    names += [other for other in request.names if other != name]  # it stood before others there
                if not self._is_present(request):
                    continue
                if request.confirms and passed_over >= MOST_UNCONFIRMED:
                    self._wake(name, request, now, effects)
                    continue
                self._grant_waited(name, request, now, effects, before, passed_over)
                before, passed_over = None, 0
                if request.slots == 1:
                    break
            passed_over = 0
        if before is not None:
            self._index.drop_place(before)

    def _reserve(self, name: bytes, now: float, effects: Effects, before: Grant | None = None) -> None:
        """Keep what is free of a lock for those who waited for it when the server before ended."""
        shared = self._index.shared.get(name)
        if shared is None or shared.of(RESERVED) is None:
            grant = self._new_grant(name, LockRequest(RESERVED, (name,), self._reserves_until - now), now)
            self._index.add(grant, before)
            self._expiries.look_by(grant, grant.deadline)
            effects.before_images[grant.token] = None
        elif before is not None:
            self._index.drop_place(before)

    def _grant_waited(
        self,
        name: bytes,
        request: LockRequest,
        now: float,
        effects: Effects,
        before: Grant | None,
        passed_over: int,
    ) -> None:
        grant = self._new_grant(name, request, now)
        self._index.add(grant, before)
        grant.request = request
        grant.untold = True
        grant.passed_over = passed_over
        if request.confirms:
            grant.confirm_by = now + CONFIRM_WITHIN
        if not effects.before_images:
            effects.before_images = {}
        effects.before_images[grant.token] = None
        if grant.process is not None:
            effects.concerns_processes = True
        effects.add_granted(request, grant)

    def _pass_over(self, grant: Grant, now: float) -> int:
        """Keep the place of one that did not confirm; return how many in a row have not. 0: it had confirmed."""
        if grant.confirm_by == inf:
            return 0
        if grant.request is not None:
            self.keep_place(grant.request, now)
        return grant.passed_over + 1

    def _wake(self, name: bytes, request: LockRequest, now: float, effects: Effects) -> None:
        """Have a waiter ask again: it is told of a grant that does not stand, which it sees when it confirms that."""
        self.keep_place(request, now)
        effects.add_woken(request, self._new_grant(name, request, now))
