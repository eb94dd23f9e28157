"""The grants that stand, and the life of each by itself: confirmed, told, renewed, overdue, kept.

The times of a grant that was waited for begin when its client could be told of it (mark_told).

A hold time that its holder renews is a lease. When it runs out the grant does not end yet: it is overdue, and somebody
has to look whether its process lives. If it does (mark_holder_alive), the lock stays.

A grant with a min-hold ends for its holder like any other. But until that is over, counted from when the client had the
grant, the lock is not free: it is kept, and nobody's. Only who breaks it shortens that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from itertools import islice
from math import inf

from ..model import Grant, HolderProcess, LockRequest, Record
from .effects import Effects
from .expiries import Expiries
from .grant_index import GrantIndex

CONFIRM_WITHIN = 10.0  # seconds: a client that lives confirms in milliseconds; one that is swapped out needs some
NEXT_CONFIRMS_WITHIN = 1.0  # seconds for those that are next when one did not confirm
CONFIRM_AGAIN_WITHIN = 20.0  # seconds after a restart: the client has to notice that, and find the server again
_MOST_SILENT = 1_000  # grants of one process that are marked; for more, a restart knows less well since when
_KEPT = b"(kept)  "  # session of a kept grant; no client can name one with a space

NOTHING = Effects()  # of a call that has changed nothing


class GrantTable:
    """All grants of one server. `held` is the oldest one of each lock, `grants` all by token.

    `last_token` is the greatest token given so far. `now` is in seconds on the server's monotonic clock.
    """

    def __init__(self, last_token: int = 0) -> None:
        self._index = GrantIndex()
        self.held = self._index.by_name
        self.grants = self._index.by_token
        self.last_token = last_token
        self._expiries = Expiries()

    # One grant, named by its token

    def current(self, name: bytes, token: int) -> Grant | None:
        """Return the grant with this name and token, if its holder still has it."""
        grant = self.grants.get(token)
        return grant if grant is not None and grant.name == name and not grant.kept else None

    def confirm(self, name: bytes, token: int, now: float) -> Effects:
        """Note that a client has received its waited grant."""
        grant = self.current(name, token)
        if grant is None or grant.confirm_by == inf:
            return NOTHING
        effects = changed(grant)
        _set_confirmed(grant, now)
        self._expire_by(grant, grant.deadline)  # it had no end if it was untold
        return effects

    def mark_told(self, grant: Grant, now: float) -> None:
        """Begin the times of a grant that was waited for, since its client could be told of it only now."""
        if not grant.untold or self.grants.get(grant.token) is not grant:
            return
        if grant.confirm_by == inf:
            _set_confirmed(grant, now)
        else:
            grant.untold = False
            grant.confirm_by = now + (NEXT_CONFIRMS_WITHIN if grant.passed_over else CONFIRM_WITHIN)
        if grant.hold:
            grant.deadline = now + grant.hold
        self._expire_by(grant, min(grant.deadline, grant.confirm_by))

    def mark_heard(self, grant: Grant) -> Effects:
        """Note that the client of a grant is heard of, since it had not been any more."""
        effects = changed(grant)
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
        effects = NOTHING
        if grant is None or grant.recalled:
            return grant, effects
        if grant.outlived or grant.confirm_by < inf:
            effects = changed(grant)
            grant.outlived = False
        _set_confirmed(grant, now)
        if grant.hold:
            grant.deadline = now + grant.hold
            self._expire_by(grant, grant.deadline)
        return grant, effects

    # A lease that has run out, once somebody has looked at its process; one that was renewed meanwhile is left alone

    def mark_holder_alive(self, grant: Grant) -> Effects:
        """Let the lock stay, since the process lives; from now on nobody's silence ends it."""
        if not self._is_overdue(grant):
            return NOTHING
        effects = changed(grant)
        grant.outlived = True
        return effects

    # Looking

    def holders(self, name: bytes) -> list[Grant]:
        """List the grants of a lock, from the oldest to the newest."""
        return self._index.holders(name)

    def walk(self) -> Iterator[Grant]:
        """Go through all that is held, in pieces while it changes: each grant that stands all the while comes once.

        So does each lock with one holder at a time, if it goes from one to the next.
        """
        return self._index.walk()

    @property
    def next_expiry(self) -> float:
        """Earliest time at which `expire` has something to do (seconds, monotonic); infinity if nothing has an end."""
        heap = self._expiries.heap
        return heap[0][0] if heap else inf

    # Inside

    def _new_grant(self, name: bytes, request: LockRequest, now: float) -> Grant:
        self.last_token = token = self.last_token + 1
        return Grant(name, token, request, now)

    def _change_terms(self, grant: Grant, request: LockRequest, now: float) -> Effects:
        """Start the hold time again, under the terms of the owner's new request; not if that is of other slots."""
        effects = NOTHING
        if grant.recalled or grant.slots != request.slots:
            return effects
        terms = (request.hold, request.lease, request.process, request.command)
        before = (grant.hold, grant.lease, grant.process, grant.command)
        if grant.outlived or grant.confirm_by < inf or request.min_hold > grant.min_hold or terms != before:
            effects = changed(grant)
            effects.concerns_processes = True
            grant.outlived = False
            self._index.change_process(grant, request.process)
            grant.hold, grant.lease, grant.command = request.hold, request.lease, request.command
        _set_confirmed(grant, now)
        if request.min_hold > grant.min_hold:
            grant.min_hold = request.min_hold
            grant.keep_until = max(grant.keep_until, grant.since + request.min_hold)
        grant.deadline = now + request.hold if request.hold else inf
        self._expire_by(grant, grant.deadline)
        return effects

    def _keep(self, grant: Grant, effects: Effects) -> None:
        """Take a lock from its holder and give it to nobody until its min-hold is over."""
        _note(effects, grant.token, copy(grant))
        if grant.process is not None:
            effects.concerns_processes = True
            self._index.change_process(grant, None)
        self._index.change_owner(grant, (grant.user, _KEPT))
        grant.kept = True
        grant.lease = grant.outlived = grant.recalled = False
        grant.hold, grant.heard = 0.0, None
        grant.deadline = grant.keep_until
        self._expire_by(grant, grant.deadline)

    def _take_out(self, grant: Grant, effects: Effects) -> None:
        """Let a grant stand no more, but for its place in the order (GrantIndex.take_out)."""
        if grant.expiry is not None:
            self._expiries.drop(grant)
        if grant.process is not None:
            effects.concerns_processes = True
        _note(effects, grant.token, grant)
        self._index.take_out(grant)

    def _put_back(self, grant: Grant) -> None:
        self._index.add(grant)
        self._expire_by(grant, min(grant.deadline, grant.confirm_by))

    def _restore(self, record: Record, now: float, clock: float) -> Grant:
        """Begin with a grant that was kept elsewhere; `clock` as for `Grant.record`."""
        grant = Grant.from_record(record, now, clock)
        if not record.confirmed:
            grant.confirm_by = now + CONFIRM_AGAIN_WITHIN
        self._put_back(grant)
        return grant

    def _undo(self, images: Iterable[Grant], now: float) -> None:
        """Let what stood before stand again, its times from the start."""
        for before in images:
            before.expiry = None
            before.untold = False
            if before.kept:
                before.deadline = before.keep_until
            else:
                before.deadline = now + before.hold if before.hold and not before.outlived else inf
            if before.confirm_by < inf:
                before.confirm_by = now + CONFIRM_WITHIN
            self._put_back(before)

    def _expire_by(self, grant: Grant, when: float) -> None:
        """See to it that `expire` looks at the grant at `when` or earlier; if it is untold, not yet."""
        if not grant.untold:
            self._expiries.look_by(grant, when)

    def _is_overdue(self, grant: Grant) -> bool:
        stands = self.grants.get(grant.token) is grant
        # With a hold time there is a deadline, until a lease has passed it. Without, there never is: it has no end.
        return stands and grant.hold > 0 and grant.deadline == inf and not grant.outlived


def outlasts_process(grant: Grant) -> bool:
    """Tell whether it is a lease under which something was started, and that has not run out."""
    return grant.lease and grant.confirm_by == inf and grant.deadline < inf


def changed(grant: Grant) -> Effects:
    """Return the effects of a call that is about to change a grant."""
    effects = Effects()
    effects.before_images = {grant.token: copy(grant)}
    return effects


def _note(effects: Effects, token: int, image: Grant) -> None:
    if effects.before_images:
        effects.before_images.setdefault(token, image)
    else:
        effects.before_images = {token: image}


def _set_confirmed(grant: Grant, now: float) -> None:
    """Note that the grant's client knows of it, over whatever connection."""
    if grant.min_hold and grant.keep_until == -inf:
        grant.keep_until = now + grant.min_hold
    grant.confirm_by = inf
    grant.untold = False
    grant.request = None
