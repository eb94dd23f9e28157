"""Who holds which lock, who waits for it, and until when: the lock service without sockets, clock or disk.

A lock has a name and at most one grant. A grant belongs to an owner, which is a user and a session (empty for
a classic client). Each name that is held may have a queue of asks; an ask waits in the queues of all of its
names and leaves them together, when the first of the names comes free or when its client goes.

The rules that hold at all times, and that the tests check on a model:
- a name has one grant or none;
- a name that is free has no queue: what comes free goes at once to the first in the queue whose client is there;
- each grant's token is greater than all before it;
- a grant with a hold time, or one that waits for its confirmation, has exactly one valid entry in the heap of
  alarms, so that time costs nothing per lock and nothing is ever scanned.

A hold time that its holder renews is a lease. When it runs out the grant does not end yet: it is `overdue`, and
somebody has to look whether its process lives. If it does, the lock stays (it is outlived); else it `expire_overdue`s.

Time comes in as `now` (seconds, monotonic). What a call changed comes out as data: `before_images` names each lock whose
grant was made, changed or freed, with the grant that stood before (for whoever keeps them: see `rollback`),
`granted` and `dropped` are the waiting asks that are to be told, `overdue` the leases that have run out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from copy import copy
from heapq import heapify, heappop, heappush
from math import inf
from typing import Callable

from ..model import Ask, Expiry, Grant, HolderProcess, Owner, Record

CONFIRM_WITHIN = 10.0  # seconds in which a waited grant must be confirmed by a client that promised to
_COMPACT_ABOVE = 512  # stale alarms are swept out when they are more than this, and more than half


class LockTable:
    """All locks of one server.

    `last_token` is the greatest token given so far. `present` says of a waiting ask whether its client is still
    there; it is asked just before a grant, so that no lock goes to a client that has hung up meanwhile.
    """

    def __init__(self, last_token: int = 0, present: Callable[[Ask], bool] = lambda ask: True) -> None:
        self.held: dict[bytes, Grant] = {}
        self.before_images: dict[bytes, Grant | None] = {}
        self.overdue: list[Grant] = []
        self.granted: list[tuple[Ask, Grant]] = []
        self.dropped: list[Ask] = []
        self.last_token = last_token
        self._present = present
        self._queues: dict[bytes, OrderedDict[Owner, Ask]] = {}
        self._by_process: dict[tuple[bytes, int], dict[bytes, Grant]] = {}
        self._alarms: list[Expiry] = []
        self._alarm_number = 0
        self._stale = 0

    # Asking and giving back

    def acquire(self, ask: Ask, now: float) -> Grant | None:
        """Grant the first free name, or renew what the owner holds of them already; None: all are busy."""
        free = None
        for name in ask.names:
            grant = self.held.get(name)
            if grant is None:
                if free is None:
                    free = name
            elif grant.belongs_to(ask):
                self._change_terms(grant, ask, now)
                return grant
        return None if free is None else self._grant(free, ask, now)

    def enqueue(self, ask: Ask) -> None:
        """Queue an ask whose names are all busy; it takes the place of one that the same owner has waiting."""
        owner = (ask.user, ask.session)
        replaced = []
        for name in ask.names:
            queue = self._queues.setdefault(name, OrderedDict())
            if owner in queue:
                replaced.append(queue[owner])
            queue[owner] = ask  # an assignment to a key that is there keeps its place
        for old in dict.fromkeys(replaced):
            self.dequeue(old)
            self.dropped.append(old)

    def dequeue(self, ask: Ask) -> bool:
        """Take an ask off all queues; False if it waited in none. It may be called at any time, and again."""
        owner = (ask.user, ask.session)
        waited = False
        for name in ask.names:
            queue = self._queues.get(name)
            if queue is not None and queue.get(owner) is ask:
                del queue[owner]
                waited = True
                if not queue:
                    del self._queues[name]
        return waited

    def release(self, ask: Ask, now: float) -> None:
        """Free those of the names that the owner holds, and take the owner off the queues of the others."""
        owner = (ask.user, ask.session)
        for name in ask.names:
            grant = self.held.get(name)
            if grant is None:
                continue
            if grant.belongs_to(ask):
                self._free(grant, now)
            else:
                queue = self._queues.get(name)
                if queue is not None and owner in queue:
                    waiting = queue[owner]
                    self.dequeue(waiting)
                    self.dropped.append(waiting)

    def break_locks(self, names: Iterable[bytes], now: float) -> list[Grant]:
        """Free the names whoever holds them; the grants that were taken away."""
        broken = [grant for grant in map(self.held.get, names) if grant is not None]
        for grant in broken:
            self._free(grant, now)
        return broken

    def report_dead(self, host: bytes, pid: int, address: str, now: float) -> tuple[list[Grant], list[HolderProcess]]:
        """Free the locks of a process that is said to be dead, if that comes from the address that took them.

        Returned are the grants that ended, and of the others the processes: there is reason to look at them. So there
        is at those known by more than their number: who says it may be in another pid namespace of that address,
        and see nothing there.
        """
        ended, doubtful = [], []
        for grant in list(self._by_process.get((host, pid), {}).values()):
            assert grant.process is not None
            if grant.process.address == address and not grant.process.boot and not self._outlasts(grant):
                ended.append(grant)
                self._free(grant, now)
            else:
                doubtful.append(grant.process)
        return ended, doubtful

    def release_of(self, process: HolderProcess, now: float) -> list[Grant]:
        """Free the locks of a process that is known to be gone; the grants that ended.

        Leases stay until they run out: what the process has started may have to be ended yet (process/watchdog.py).
        """
        grants = self._by_process.get((process.host, process.pid), {}).values()
        ended = [grant for grant in grants if grant.process == process and not self._outlasts(grant)]
        for grant in ended:
            self._free(grant, now)
        return ended

    def _outlasts(self, grant: Grant) -> bool:
        """Whether it is a lease under which something was started, and that has not run out."""
        return grant.lease and grant.confirm_by == inf and grant.deadline < inf

    # One grant, named by its token

    def current(self, name: bytes, token: int) -> Grant | None:
        """The grant with this token, if it still stands."""
        grant = self.held.get(name)
        return grant if grant is not None and grant.token == token else None

    def confirm(self, name: bytes, token: int) -> None:
        """A client has received its waited grant."""
        grant = self.current(name, token)
        if grant is not None and grant.confirm_by < inf:
            self._save_before_image(grant)
            grant.confirm_by = inf

    def renew(self, name: bytes, token: int, now: float) -> Grant | None:
        """Start the hold time of a grant anew if it still stands; whoever renews it has received it.

        A grant that is returned with `recalled` set was not renewed.
        """
        grant = self.current(name, token)
        if grant is None or grant.recalled:
            return grant
        if grant.outlived or grant.confirm_by < inf:
            self._save_before_image(grant)
            grant.outlived = False
            grant.confirm_by = inf
        if grant.hold:
            grant.deadline = now + grant.hold
            self._alarm_by(grant, grant.deadline)
        return grant

    # A lease that has run out, once somebody has looked at its process; one that was renewed meanwhile is left alone

    def mark_holder_alive(self, grant: Grant) -> None:
        """The process lives, so the lock stays; from now on nobody's silence ends it."""
        if self._is_overdue(grant):
            self._save_before_image(grant)
            grant.outlived = True

    def expire_overdue(self, grant: Grant, now: float) -> bool:
        """Nobody knows the process to live; whether the grant ended by that."""
        overdue = self._is_overdue(grant)
        if overdue:
            self._free(grant, now)
        return overdue

    def _is_overdue(self, grant: Grant) -> bool:
        stands = self.held.get(grant.name) is grant
        return stands and grant.lease and grant.deadline == inf and not grant.outlived

    # Kept elsewhere

    def restore(self, records: Iterable[Record], now: float, clock: float) -> None:
        """Begin with the grants that were kept; `clock` as for `Grant.record`. All times begin anew."""
        for record in records:
            grant = Grant.from_record(record, now, clock)
            if not record.confirmed:
                grant.confirm_by = now + CONFIRM_WITHIN
            self._put_back(grant)

    def rollback(self, changes: dict[bytes, Grant | None], now: float) -> list[Ask]:
        """Take changes back that could not be kept: what stood before stands again, with its hold time anew.

        The asks that waited for what is free thereby are returned; they wait no more, since nobody would wake them.
        """
        stranded: dict[Ask, None] = {}
        for name, before in changes.items():
            grant = self.held.pop(name, None)
            if grant is not None:
                self._let_go(grant)
            if before is not None:
                before.expiry = None
                before.deadline = now + before.hold if before.hold and not before.outlived else inf
                self._put_back(before)
            else:
                stranded.update(dict.fromkeys(self._queues.get(name, {}).values()))
        for ask in stranded:
            self.dequeue(ask)
        return list(stranded)

    # Looking

    def waiters(self, name: bytes) -> list[Ask]:
        """Those that wait for a lock, in the order in which they are served."""
        return list(self._queues.get(name, {}).values())

    def standing(self, ask: Ask) -> Grant | None:
        """The grant that STATUS speaks of: the asker's own if there is one, else that of the first held name."""
        first = None
        for name in ask.names:
            grant = self.held.get(name)
            if grant is not None:
                if grant.belongs_to(ask):
                    return grant
                first = first or grant
        return first

    # Time

    @property
    def next_alarm(self) -> float:
        """When `expire` has something to do at the earliest; infinity if nothing has an end."""
        return self._alarms[0][0] if self._alarms else inf

    def expire(self, now: float) -> list[Grant]:
        """Free what was held, or left unconfirmed, for too long; the grants that ended.

        A confirmed lease whose process is known is `overdue` instead: it has no end until somebody has looked.
        """
        ended = []
        while self._alarms and self._alarms[0][0] <= now:
            alarm = heappop(self._alarms)
            grant = alarm[2]
            if grant.expiry is not alarm:
                self._stale -= 1
                continue
            grant.expiry = None
            due = min(grant.deadline, grant.confirm_by)
            if due <= now:
                if grant.lease and grant.process is not None and grant.confirm_by == inf:
                    grant.deadline = inf
                    self.overdue.append(grant)
                else:
                    ended.append(grant)
                    self._free(grant, now)
            elif due < inf:  # it was renewed since: the entry moves, so a renewal itself costs nothing here
                self._set_alarm(grant, due)
        return ended

    # Inside

    def _grant(self, name: bytes, ask: Ask, now: float) -> Grant:
        self.last_token = token = self.last_token + 1
        self.held[name] = grant = Grant(name, token, ask, now)
        if grant.hold:
            self._set_alarm(grant, grant.deadline)
        if grant.process is not None:
            self._index(grant)
        self.before_images.setdefault(name, None)
        return grant

    def _change_terms(self, grant: Grant, ask: Ask, now: float) -> None:
        """A lock asked for again by its owner: the hold time starts anew, under the terms of the new ask."""
        if grant.recalled:
            return
        terms = (ask.hold, ask.lease, ask.process, ask.command)
        if grant.outlived or grant.confirm_by < inf or terms != (grant.hold, grant.lease, grant.process, grant.command):
            self._save_before_image(grant)
            grant.outlived = False
            grant.confirm_by = inf
            self._unindex(grant)
            grant.hold, grant.lease, grant.process, grant.command = terms
            self._index(grant)
        grant.deadline = now + ask.hold if ask.hold else inf
        self._alarm_by(grant, grant.deadline)

    def _free(self, grant: Grant, now: float) -> None:
        del self.held[grant.name]
        self._let_go(grant)
        self.before_images.setdefault(grant.name, grant)
        if self._queues and grant.name in self._queues:
            self._grant_next(grant.name, now)

    def _let_go(self, grant: Grant) -> None:
        if grant.expiry is not None:
            self._drop_alarm(grant)
        if grant.process is not None:
            self._unindex(grant)

    def _put_back(self, grant: Grant) -> None:
        self.held[grant.name] = grant
        self._index(grant)
        due = min(grant.deadline, grant.confirm_by)
        if due < inf:
            self._set_alarm(grant, due)

    def _grant_next(self, name: bytes, now: float) -> None:
        queue = self._queues[name]
        while queue:
            ask = next(iter(queue.values()))
            self.dequeue(ask)
            if self._present(ask):
                grant = self._grant(name, ask, now)
                if ask.confirms:
                    grant.confirm_by = now + CONFIRM_WITHIN
                    self._alarm_by(grant, grant.confirm_by)
                self.granted.append((ask, grant))
                return

    def _save_before_image(self, grant: Grant) -> None:
        """A grant is about to change: keep it as it was, unless the change before this one did."""
        if grant.name not in self.before_images:
            self.before_images[grant.name] = copy(grant)

    def _index(self, grant: Grant) -> None:
        if grant.process is not None:
            key = (grant.process.host, grant.process.pid)
            self._by_process.setdefault(key, {})[grant.name] = grant

    def _unindex(self, grant: Grant) -> None:
        if grant.process is not None:
            key = (grant.process.host, grant.process.pid)
            del self._by_process[key][grant.name]
            if not self._by_process[key]:
                del self._by_process[key]

    def _alarm_by(self, grant: Grant, when: float) -> None:
        """See to it that the grant's alarm goes off at `when` or earlier."""
        if when < (inf if grant.expiry is None else grant.expiry[0]):
            if grant.expiry is not None:
                self._drop_alarm(grant)
            self._set_alarm(grant, when)

    def _set_alarm(self, grant: Grant, when: float) -> None:
        self._alarm_number += 1
        grant.expiry = alarm = (when, self._alarm_number, grant)
        heappush(self._alarms, alarm)

    def _drop_alarm(self, grant: Grant) -> None:
        """Leave a grant's entry in the heap as stale; sweep when half of them are, so that each costs O(1)."""
        grant.expiry = None
        self._stale += 1
        if self._stale > _COMPACT_ABOVE and self._stale * 2 > len(self._alarms):
            self._alarms = [alarm for alarm in self._alarms if alarm[2].expiry is alarm]
            heapify(self._alarms)
            self._stale = 0
