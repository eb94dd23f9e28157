"""Data types of the lock service: the request for a lock, the grant that comes of it, and the record that is kept.

A request is what one LOCK asks for. A grant is one holding of one lock, from its start to its end; its token is a
number that no other grant has, before or after. So rows on disk, changes and answers name a grant by its token.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple, Optional

Place = tuple[float, int]  # in a queue: since when it has waited (seconds, monotonic), and the number of the request
Owner = tuple[bytes, bytes]  # user and session (empty for a classic client): who may renew and release a grant


class HolderProcess(NamedTuple):
    """The process that a lock depends on, as far as its client told (process/identity.py).

    `address` is the client's own, empty for a UNIX socket; or the place of one that was on the server's host, where a
    server on another host may read it (server/client_place.py).
    """

    host: bytes
    pid: int
    start: Optional[int]
    boot: bytes
    pidns: Optional[int]
    address: str
    machine: bytes = b""
    timens: Optional[int] = None


class LockRequest:
    """One LOCK: who asks, for which names (the first free one is granted), and under which terms.

    `hold`: seconds that the lock may be held, 0 for ever; a `lease` is a hold that its holder renews.
    `process`: if set, the lock may be freed when that is gone. `command`: what runs under the lock, for people to read.
    `confirms`: the client confirms a grant that it has waited for; one without confirmation is taken back.
    `slots`: how many holders the lock may have while this is one of them (server/lock_modes.py); 0: any number.
    `min_hold`: seconds for which the lock is held at least, 0 for none.
    `waited`: for how many seconds the client has waited before it asked, as from a server that has ended since.
    Of one that waits, `address` is where its client is connected from, `queued_at` when it began to wait (seconds,
    monotonic), `places` its place in the queue of each of its names (server/wait_queues.py).
    """

    __slots__ = (
        "address",
        "command",
        "confirms",
        "hold",
        "lease",
        "min_hold",
        "names",
        "owner",
        "places",
        "process",
        "queued_at",
        "slots",
        "waited",
    )

    address: str
    queued_at: float
    places: tuple[Place, ...]

    def __init__(
        self,
        owner: Owner,
        names: tuple[bytes, ...],
        hold: float = 0.0,
        lease: bool = False,
        process: HolderProcess | None = None,
        command: bytes = b"",
        confirms: bool = False,
        waited: float = 0.0,
        slots: int = 1,
        min_hold: float = 0.0,
    ) -> None:
        self.owner = owner
        self.names = names
        self.hold = hold
        self.lease = lease
        self.process = process
        self.command = command
        self.confirms = confirms
        self.waited = waited
        self.slots = slots
        self.min_hold = min_hold


class Grant:
    """One holding of one lock, from its grant to its end; `token` tells it from every other.

    All times are seconds on the server's monotonic clock.
    """

    __slots__ = (
        "after",
        "before",
        "command",
        "confirm_by",
        "deadline",
        "expiry",
        "heard",
        "hold",
        "keep_until",
        "kept",
        "lease",
        "min_hold",
        "name",
        "outlived",
        "owner",
        "passed_over",
        "process",
        "recalled",
        "request",
        "since",
        "slots",
        "token",
        "untold",
    )

    after: Any  # its neighbours in the list of held locks (server/held_list.py), while it is in that
    before: Any

    def __init__(self, name: bytes, token: int, request: LockRequest, now: float) -> None:
        self.name = name
        self.token = token
        self.owner = request.owner
        self.process = request.process
        self.command = request.command
        self.since = now
        self.hold = hold = request.hold
        self.lease = request.lease
        self.slots = request.slots
        self.min_hold = request.min_hold
        self.keep_until = -inf  # from when on it may be freed; with a `min_hold`, known once the client has the grant
        self.kept = False  # it is nobody's any more, and stays until then
        self.outlived = False  # the lease ran out, but the process is known to live
        self.recalled = False  # the holder was asked to give it back; it can't be renewed
        self.deadline = now + hold if hold else inf
        self.confirm_by = inf
        self.request: LockRequest | None = None  # that waited for it; until it is told, and confirmed if that is to be
        self.untold = False  # it was waited for, and its client can't have been told yet: its times have not begun
        self.passed_over = 0  # how many before it were granted the lock in a row, and have not confirmed that
        self.heard: float | None = None  # when the client was last heard of, if it was not any more before a restart
        self.expiry: Expiry | None = None  # this grant's one valid entry in the heap

    @property
    def user(self) -> bytes:
        """The user of its owner."""
        return self.owner[0]

    def record(self, clock: float) -> Record:
        """Return the grant as it is kept; `clock` is what the wall clock is ahead of the monotonic one, in seconds."""
        user, session = self.owner
        process = self.process or _NO_PROCESS
        return Record(
            self.token,
            self.name,
            user,
            session,
            self.since + clock,
            self.hold,
            self.lease,
            self.outlived,
            self.confirm_by == inf,
            self.recalled,
            None if self.heard is None else self.heard + clock,
            self.command,
            *process,
            self.slots,
            self.min_hold,
            self.keep_until + clock if self.keep_until > -inf else None,
            self.kept,
        )

    @classmethod
    def from_record(cls, record: Record, now: float, clock: float) -> Grant:
        """Return the grant of a record, confirmed or not; its hold time starts again, in full.

        Of its min-hold only what is left counts, by the wall clock: else one of 23 hours would skip a night.
        """
        process = None
        if record.pid:
            process = HolderProcess(
                record.host,
                record.pid,
                record.start,
                record.boot,
                record.pidns,
                record.address,
                record.machine,
                record.timens,
            )
        owner = (record.user, record.session)
        request = LockRequest(owner, (record.name,), record.hold, bool(record.lease), process, record.command)
        grant = cls(record.name, record.token, request, now)
        grant.since = record.since - clock
        grant.slots, grant.min_hold, grant.kept = record.slots, record.min_hold, bool(record.kept)
        if record.keep_until is not None:
            grant.keep_until = min(record.keep_until - clock, now + record.min_hold)
        grant.recalled = bool(record.recalled)
        grant.heard = None if record.heard is None else record.heard - clock
        if record.outlived:
            grant.outlived = True
            grant.deadline = inf
        if grant.kept:
            grant.deadline = grant.keep_until
        return grant


class Record(NamedTuple):
    """A grant as it is kept on disk: times are seconds since 1970; a grant without a process has the pid 0."""

    token: int
    name: bytes
    user: bytes
    session: bytes
    since: float
    hold: float
    lease: bool
    outlived: bool
    confirmed: bool
    recalled: bool
    heard: Optional[float]
    command: bytes
    host: bytes
    pid: int
    start: Optional[int]
    boot: bytes
    pidns: Optional[int]
    address: str
    machine: bytes
    timens: Optional[int]
    slots: int = 1
    min_hold: float = 0.0
    keep_until: Optional[float] = None
    kept: bool = False


_NO_PROCESS = HolderProcess(b"", 0, None, b"", None, "")
Expiry = tuple[float, int, Grant]  # when, a number that decides between equals, whose


class HeldGrant(NamedTuple):
    """A grant as its holder knows it. `token` is None from a classic server.

    `asked`: when the request was sent that its time counts from; `until`: when that is over, if it is not renewed
    (seconds, monotonic).
    """

    name: bytes
    token: Optional[int]
    asked: float
    until: float

    def line(self, word: bytes) -> bytes:
        """The line of a command about this very grant."""
        assert self.token is not None
        return b"%b %b %d\n" % (word, self.name, self.token)
