"""What one lock service speaks of: who asks for which locks, the grant that he gets, and how it is kept."""

from __future__ import annotations

from math import inf
from typing import NamedTuple, Optional


class HolderProcess(NamedTuple):
    """The process that a lock lives as long as, as far as its client told; `address` is the client's own."""

    host: bytes
    pid: int
    start: Optional[int]
    boot: bytes
    pidns: Optional[int]
    address: str


class Ask:
    """What one client wants, and for whom. It must not change while it waits in a queue."""

    user: bytes = b""
    session: bytes = b""
    names: tuple[bytes, ...] = ()
    hold: float = 0.0  # seconds the lock may be held; 0: for ever
    lease: bool = False  # the hold time is renewed for as long as the holder is well
    command: bytes = b""  # what runs under the lock, for people to read
    process: Optional[HolderProcess] = None  # set: the lock may be freed when this process is gone
    confirms: bool = False  # a waited grant is confirmed, or taken back


Owner = tuple[bytes, bytes]


class Grant:
    """One holding of one lock, from its grant to its end; `token` tells it from every other."""

    __slots__ = (
        "command",
        "confirm_by",
        "deadline",
        "expiry",
        "hold",
        "lease",
        "name",
        "outlived",
        "process",
        "recalled",
        "session",
        "since",
        "token",
        "user",
    )

    def __init__(self, name: bytes, token: int, ask: Ask, now: float) -> None:
        self.name = name
        self.token = token
        self.user = ask.user
        self.session = ask.session
        self.process = ask.process
        self.command = ask.command
        self.since = now
        self.hold = hold = ask.hold
        self.lease = ask.lease
        self.outlived = False  # the lease ran out, but the process is known to live
        self.recalled = False  # the holder was asked to give it back; it can't be renewed
        self.deadline = now + hold if hold else inf
        self.confirm_by = inf
        self.expiry: Expiry | None = None  # this grant's one valid entry in the heap

    def belongs_to(self, ask: Ask) -> bool:
        """Whether `ask` comes from the owner of this grant: the same user and the same session."""
        return self.user == ask.user and self.session == ask.session

    def record(self, clock: float) -> Record:
        """The grant as it is kept; `clock` is what the wall clock is ahead of the monotonic one, in seconds."""
        process = self.process or _NO_PROCESS
        return Record(
            self.name,
            self.token,
            self.user,
            self.session,
            self.since + clock,
            self.hold,
            self.lease,
            self.outlived,
            self.confirm_by == inf,
            self.command,
            *process,
        )

    @classmethod
    def from_record(cls, record: Record, now: float, clock: float) -> Grant:
        """The grant that was kept, confirmed or not; its hold time starts anew, in full."""
        ask = Ask()
        ask.user, ask.session, ask.command = record.user, record.session, record.command
        ask.hold, ask.lease = record.hold, bool(record.lease)
        if record.pid:
            ask.process = HolderProcess(
                record.host, record.pid, record.start, record.boot, record.pidns, record.address
            )
        grant = cls(record.name, record.token, ask, now)
        grant.since = record.since - clock
        if record.outlived:
            grant.outlived = True
            grant.deadline = inf
        return grant


class Record(NamedTuple):
    """A grant as it is kept on disk: times are seconds since 1970, and whoever has no process has the pid 0."""

    name: bytes
    token: int
    user: bytes
    session: bytes
    since: float
    hold: float
    lease: bool
    outlived: bool
    confirmed: bool
    command: bytes
    host: bytes
    pid: int
    start: Optional[int]
    boot: bytes
    pidns: Optional[int]
    address: str


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
