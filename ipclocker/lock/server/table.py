"""Lock table: the holder of each lock, its waiters, and the time when a hold ends; without sockets, clock or disk.

A lock has a name and at most one grant. A grant belongs to an owner, which is a user and a session. Each name that is
held may have a queue of requests; a request waits in the queues of all of its names and leaves them together, when the
first of the names comes free or when its client goes (wait_queues.py).

The rules that hold at all times, and that the tests check on a model:
- a name has one grant or none;
- a name that is free has no queue: what comes free goes at once to the first in the queue whose client is there;
- each grant's token is greater than all before it;
- a grant with a hold time, or one that waits for its confirmation, is looked at on time (expiries.py), and nothing is
  ever scanned.

The times of a grant that was waited for begin when its client could be told of it (mark_told). If the client does not
confirm it in time (it may be stopped, or its host gone), the lock goes to the next, who has less time; after several
in a row all who wait are woken at once, and the first who asks again has the lock. So nobody waits for long for a
lock that nobody uses. Who did not confirm has his place in the queue when he comes back.

A server that begins with locks that were kept knows nothing of their queues. What is freed of these in the first
seconds is reserved until they are over, so that those who had waited come back in time, and have it in the order of how
long they have waited. A reservation is a grant to an owner that nobody can be.

A hold time that its holder renews is a lease. When it runs out the grant does not end yet: it is overdue, and somebody
has to look whether its process lives. If it does (mark_holder_alive), the lock stays; else the grant ends
(expire_overdue).

`now` is in seconds on the server's monotonic clock. What a call has changed comes back as Effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from itertools import islice
from math import inf
from typing import Callable

from ..model import Grant, HolderProcess, LockRequest, Owner, Record
from .effects import BeforeImages, Effects
from .expiries import Expiries
from .grant_index import GrantIndex
from .recent import Recent
from .wait_queues import WaitQueues

CONFIRM_WITHIN = 10.0  # seconds: a client that lives confirms in milliseconds; one that is swapped out needs some
NEXT_CONFIRMS_WITHIN = 1.0  # seconds for those that are next when one did not confirm
RETURN_WITHIN = 2.0  # seconds from the begin with kept locks; those who waited for one look for the server meanwhile
CONFIRM_AGAIN_WITHIN = 20.0  # seconds from then: the client has to notice that the server is gone, and find it again
MOST_UNCONFIRMED = 5  # in a row, which is 14 s; then all are woken
OVER_FOR = 600.0  # seconds for which a session that is over is remembered: no packet is on its way for longer
_MOST_OVER = 100_000  # sessions
_MOST_SILENT = 1_000  # grants of one process that are marked; for more, a restart knows less well since when

RESERVED: Owner = (b"lockerd(for-those-who-waited)", b" ")  # no client can name a session with a space
_NOTHING = Effects()  # of a call that has changed nothing


class LockTable:
    """All locks of one server. `held` is what each name is held by, `grants` the same by token.

    `last_token` is the greatest token given so far. `is_present` says of a waiting request whether its client is still
    there; it is asked just before a grant, so that no lock goes to a client that has hung up meanwhile.
    """

    def __init__(self, last_token: int = 0, is_present: Callable[[LockRequest], bool] = lambda request: True) -> None:
        self._index = GrantIndex()
        self.held = self._index.by_name
        self.grants = self._index.by_token
        self.last_token = last_token
        self._is_present = is_present
        self._queues = WaitQueues()
        self._over: Recent[Owner, bool] = Recent(OVER_FOR, _MOST_OVER)
        self._expiries = Expiries()
        self._reserves_until = -inf  # and of what was restored, which has tokens up to that one:
        self._restored_token = 0

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
        grant = self._new_grant(free, request, now)
        self._index.add(grant)
        if grant.hold:
            self._expiries.look_by(grant, grant.deadline)
        if self._queues.kept_places:
            self._queues.forget_place(request.owner, now)
        effects = Effects()
        effects.before_images = {grant.token: None}
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
        if not replaced:
            return _NOTHING
        effects = Effects()
        for old in replaced:
            effects.add_superseded(old)
        return effects

    def dequeue(self, request: LockRequest) -> bool:
        """Take a request off all queues; False if it waited in none. It may be called at any time, and again."""
        return self._queues.remove(request)

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
            if grant.owner == owner:
                self._free(grant, now, effects)
                continue
            waiting = self._queues.find(name, owner)
            if waiting is not None:
                self.dequeue(waiting)
                effects.add_superseded(waiting)
        if self._queues.kept_places:
            self._queues.forget_place(owner, now)
        return effects

    def release_grant(self, owner: Owner, name: bytes, token: int, now: float) -> Effects:
        """Free that very grant, if it is the owner's and still stands."""
        grant = self.current(name, token)
        effects = Effects()
        if grant is not None and grant.owner == owner:
            self._free(grant, now, effects)
        return effects

    def end_session(self, owner: Owner, now: float) -> None:
        """Remember that an owner asks for nothing more; a LOCK of its that comes all the same is late."""
        self._over.put(owner, True, now)

    def is_over(self, owner: Owner, now: float) -> bool:
        """Tell whether the session of an owner is over, as far as it is remembered."""
        return self._over.get(owner, now) is not None

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

    def recall(self, names: Iterable[bytes]) -> tuple[list[Grant], Effects]:
        """Mark the leases among these locks as asked for back, so that they can't be renewed; return their grants."""
        leases = [grant for grant in map(self.held.get, names) if grant is not None and grant.lease]
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
            if grant.process.address == address and not grant.process.boot and not self._outlasts(grant):
                dead.append(grant)
            else:
                suspects.append(grant.process)
        return self.end(dead, now), suspects

    def release_of(self, process: HolderProcess, now: float) -> Effects:
        """Free the locks of a process that is known to be gone.

        Leases stay until they run out: what the process has started may have to be ended yet (process/watchdog.py).
        """
        grants = self._index.of_process(process.host, process.pid)
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
        _set_confirmed(grant)
        self._expire_by(grant, grant.deadline)  # it had no end if it was untold
        return effects

    def mark_told(self, grant: Grant, now: float) -> None:
        """Begin the times of a grant that was waited for, since its client could be told of it only now."""
        if not grant.untold or self.grants.get(grant.token) is not grant:
            return
        grant.untold = False
        if grant.confirm_by == inf:
            grant.request = None
        else:
            grant.confirm_by = now + (NEXT_CONFIRMS_WITHIN if grant.passed_over else CONFIRM_WITHIN)
        if grant.hold:
            grant.deadline = now + grant.hold
        self._expire_by(grant, min(grant.deadline, grant.confirm_by))

    def end_untold(self, grant: Grant, now: float) -> Effects:
        """End a grant whose client has gone before it could be told; not if the same owner was told elsewhere."""
        return self.end([grant] if grant.untold else [], now)

    def mark_heard(self, grant: Grant) -> Effects:
        """Note that the client of a grant is heard of, since it had not been any more."""
        effects = _changed(grant)
        grant.heard = None
        return effects

    def mark_silent(self, process: HolderProcess, heard: float) -> Effects:
        """Note when the client that holds locks for this process was last heard of (seconds, monotonic)."""
        effects = Effects()
        effects.before_images = {}
        for grant in islice(self._index.of_process(process.host, process.pid), _MOST_SILENT):
            if grant.process == process:
                effects.before_images[grant.token] = copy(grant)
                grant.heard = heard
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
        _set_confirmed(grant)
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
        self._reserves_until = now + RETURN_WITHIN
        for record in records:
            grant = Grant.from_record(record, now, clock)
            if not record.confirmed:
                grant.confirm_by = now + CONFIRM_AGAIN_WITHIN
            self._restored_token = max(self._restored_token, grant.token)
            self._put_back(grant)

    def rollback(self, images: BeforeImages, now: float) -> tuple[list[LockRequest], list[LockRequest]]:
        """Take changes back that could not be kept: what stood before stands again, its times from the start.

        Returned are the requests that are in the queue again, each at its place, since what was granted to them was
        taken back; and those that waited for what is free thereby, which wait no more, since nobody would wake them.
        """
        freed: list[bytes] = []
        returned: list[LockRequest] = []
        stranded: list[LockRequest] = []
        for token, before in images.items():
            grant = self.grants.get(token)
            if grant is not None:
                self._index.remove(grant)
                self._expiries.drop(grant)
                freed.append(grant.name)
                if before is None and grant.request is not None:
                    (returned if self._queues.put_back(grant.request) else stranded).append(grant.request)
        for before in images.values():
            if before is not None:
                before.expiry = None
                before.untold = False
                before.deadline = now + before.hold if before.hold and not before.outlived else inf
                if before.confirm_by < inf:
                    before.confirm_by = now + CONFIRM_WITHIN
                self._put_back(before)
        freed += [name for request in returned for name in request.names]
        stranded += [request for name in freed if name not in self.held for request in self.waiters(name)]
        stranded = list(dict.fromkeys(stranded))
        for request in stranded:
            self.dequeue(request)
            self.keep_place(request, now)
        return [request for request in returned if request not in stranded], stranded

    # Looking

    def walk(self) -> Iterator[Grant]:
        """Go through all that is held, in pieces while it changes: each lock that is held all the while comes once."""
        return self._index.walk()

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
            if grant is not None and grant.owner != RESERVED:
                if grant.owner == owner:
                    return grant
                first = first or grant
        return first

    # Time

    @property
    def next_expiry(self) -> float:
        """Earliest time at which `expire` has something to do (seconds, monotonic); infinity if nothing has an end."""
        heap = self._expiries.heap
        return heap[0][0] if heap else inf

    def expire(self, now: float) -> Effects:
        """End what was held, or left unconfirmed, for too long.

        A confirmed lease whose process is known is `overdue` instead: it has no end until somebody has looked.
        """
        effects = Effects()
        while (grant := self._expiries.pop_due(now)) is not None:
            due = min(grant.deadline, grant.confirm_by)
            if due <= now:
                if grant.lease and grant.process is not None and grant.confirm_by == inf:
                    grant.deadline = inf
                    effects.add_overdue(grant)
                else:
                    if grant.owner != RESERVED:
                        effects.add_ended(grant)
                    self._free(grant, now, effects, self._pass_over(grant, now))
            elif due < inf:  # it was renewed since: the entry moves, so a renewal itself costs nothing here
                self._expiries.look_by(grant, due)
        return effects

    # Inside

    def _new_grant(self, name: bytes, request: LockRequest, now: float) -> Grant:
        self.last_token = token = self.last_token + 1
        return Grant(name, token, request, now)

    def _change_terms(self, grant: Grant, request: LockRequest, now: float) -> Effects:
        """Start the hold time again, under the terms of the owner's new request."""
        effects = _NOTHING
        if grant.recalled:
            return effects
        terms = (request.hold, request.lease, request.process, request.command)
        if grant.outlived or grant.confirm_by < inf or terms != (grant.hold, grant.lease, grant.process, grant.command):
            effects = _changed(grant)
            effects.concerns_processes = True
            grant.outlived = False
            self._index.change_process(grant, request.process)
            grant.hold, grant.lease, grant.command = request.hold, request.lease, request.command
        _set_confirmed(grant)
        grant.deadline = now + request.hold if request.hold else inf
        self._expire_by(grant, grant.deadline)
        return effects

    def _free(self, grant: Grant, now: float, effects: Effects, passed_over: int = 0) -> None:
        """Free a lock, and grant it to the first in its queue whose client is there."""
        name = grant.name
        if grant.expiry is not None:
            self._expiries.drop(grant)
        if grant.process is not None:
            effects.concerns_processes = True
        if effects.before_images:
            effects.before_images.setdefault(grant.token, grant)
        else:
            effects.before_images = {grant.token: grant}
        if now < self._reserves_until and grant.token <= self._restored_token:
            self._reserve(grant, now, effects)
            return
        while name in self._queues.by_name:
            request = self._queues.first(name)
            self.dequeue(request)
            if not self._is_present(request):
                continue
            if request.confirms and passed_over >= MOST_UNCONFIRMED:
                self._wake(name, request, now, effects)
                continue
            self._grant_waited(grant, request, now, effects, passed_over)
            return
        self._index.remove(grant)

    def _reserve(self, before: Grant, now: float, effects: Effects) -> None:
        """Keep a lock that comes free for those who waited for it when the server before ended."""
        request = LockRequest(RESERVED, (before.name,), self._reserves_until - now)
        grant = self._new_grant(before.name, request, now)
        self._index.replace(before, grant)
        self._expiries.look_by(grant, grant.deadline)
        effects.before_images[grant.token] = None

    def _grant_waited(
        self, before: Grant, request: LockRequest, now: float, effects: Effects, passed_over: int
    ) -> None:
        grant = self._new_grant(before.name, request, now)
        self._index.replace(before, grant)
        grant.request = request
        grant.untold = True
        grant.passed_over = passed_over
        if request.confirms:
            grant.confirm_by = now + CONFIRM_WITHIN
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

    def _put_back(self, grant: Grant) -> None:
        self._index.add(grant)
        self._expire_by(grant, min(grant.deadline, grant.confirm_by))

    def _expire_by(self, grant: Grant, when: float) -> None:
        """See to it that `expire` looks at the grant at `when` or earlier; if it is untold, not yet."""
        if not grant.untold:
            self._expiries.look_by(grant, when)


def _set_confirmed(grant: Grant) -> None:
    """Note that the grant's client knows of it, over whatever connection."""
    grant.confirm_by = inf
    grant.untold = False
    grant.request = None


def _changed(grant: Grant) -> Effects:
    """Return the effects of a call that is about to change a grant."""
    effects = Effects()
    effects.before_images = {grant.token: copy(grant)}
    return effects
