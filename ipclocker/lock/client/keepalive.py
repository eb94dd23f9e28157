"""What a holder does while it holds: listen for a loss, renew its lease, and come back to its server when that is gone.

A step does one of these and then returns, so that whoever calls can look at its own times between two; nothing in it
waits beyond the time that it was given. A grant whose loss was heard of stays lost. That a lease was not renewed in
time is not this module's to say: the caller has the lease, and looks at it.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from ..model import HeldGrant
from ..wire.replies import Answer, Lost, Recall, Reply
from .connection import CONNECT_WITHIN, READ, ConnectionLost, DeadlineExceeded, ServerConnection
from .connector import ANSWER_WITHIN, FIRST_PAUSE, ServerConnector
from .lease import Lease


class LockLoss(NamedTuple):
    """The lock `name` is lost, and why; if it is `recalled`, it still stands until it is given back."""

    name: str
    why: str
    recalled: bool = False


class KeepAlive:
    """Keeps grants, all of one server and with tokens, over a contact that stays with that server.

    With a `lease` they are renewed under it, all at once. `loss` is the first that was heard of.
    """

    def __init__(self, connector: ServerConnector, grants: Iterable[HeldGrant], lease: Lease | None = None) -> None:
        self.lease = lease
        self.loss: LockLoss | None = None
        self._connector = connector
        self._grants = {(grant.name, grant.token): grant for grant in grants}
        self._asked: deque[HeldGrant] = deque()  # about which the server has not answered yet
        self._asked_at = -inf
        self._checked_on = connector.connection  # the connection on which the server knows who listens
        # Of a lease there is no time to lose: a new try is heard sooner than TCP's own second one, after a second.
        self._patience = ANSWER_WITHIN if lease is None else min(ANSWER_WITHIN, max(0.5, lease.seconds / 6))
        self._connect_within = CONNECT_WITHIN if lease is None else min(CONNECT_WITHIN, max(0.3, lease.seconds / 10))
        if lease is not None:
            connector.longest_pause = max(FIRST_PAUSE, lease.seconds / 30)

    @property
    def problem(self) -> str:
        """Why the server does not renew; empty if it was not asked to."""
        if self._connector.connection is None:
            return str(self._connector.unavailable())
        return f"the lock server {self._connector.server} does not answer" if self._asked else ""

    @property
    def settled(self) -> bool:
        """Whether the server has said all that it was asked for, on the connection that there is."""
        return (
            not self._asked
            and self._connector.connection is not None
            and self._checked_on is self._connector.connection
        )

    def step(self, until: float) -> None:
        """Do what is due, or wait for it or for news; return at `until`, a monotonic time, at the latest."""
        connector = self._connector
        try:
            if connector.connection is None and not connector.connect_after_pause(until, self._connect_within):
                return
            assert connector.connection is not None
            if not self._asked and self._is_due(connector.connection):
                self._ask(connector.connection, until)
            self._listen(connector.connection, until)
        except ConnectionLost as problem:
            self._asked.clear()
            connector.on_lost(problem)

    def _is_due(self, connection: ServerConnection) -> bool:
        if self._checked_on is not connection:
            return True
        return self.lease is not None and time.monotonic() >= self.lease.renew_at

    def _ask(self, connection: ServerConnection, until: float) -> None:
        """Ask whether they stand, or have them renewed, in one packet; the server tells of their loss from then on."""
        word = b"CHECK" if self.lease is None else b"RENEW"
        self._checked_on = connection
        self._asked.extend(self._grants.values())
        self._asked_at = time.monotonic()
        lines = b"".join(grant.line(word) for grant in self._asked)
        connection.send_request(lines[:-1], b"", until, tell=1)

    def _listen(self, connection: ServerConnection, until: float) -> None:
        """Take what has arrived; if nothing has, wait for the next that is due."""
        if self._hear_all(connection):
            return
        renew_at = inf if self.lease is None else self.lease.renew_at
        due = self._asked_at + self._patience if self._asked else renew_at
        if self._connector.wait(connection.sock, READ, min(until, due)):
            connection.receive()
            self._hear_all(connection)
        elif self._asked and time.monotonic() >= due:
            raise ConnectionLost(errno.ETIMEDOUT, "it does not answer")

    def _hear_all(self, connection: ServerConnection) -> bool:
        heard = False
        for reply in connection.pending():
            heard = True
            self._hear(reply)
        return heard

    def _hear(self, reply: Reply) -> None:
        if isinstance(reply, (Lost, Recall)):
            grant = self._grants.get((reply.name, reply.token))
            if grant is not None:
                self._lose(grant, isinstance(reply, Recall))
        elif isinstance(reply, Answer) and self._asked:
            grant = self._asked.popleft()
            if reply.error in (b"lost", b"recalled") or reply.current is False:
                self._lose(grant, reply.error == b"recalled", asked=True)
            elif not (reply.renewed or reply.current):
                raise ConnectionLost(errno.EPROTO, f"it answers {os.fsdecode(reply.error or b'nothing')}")
            elif not self._asked:
                self._connector.on_reply()
                if self.lease is not None:
                    self.lease.renewed(self._asked_at)

    def _lose(self, grant: HeldGrant, recalled: bool, asked: bool = False) -> None:
        if self.loss is not None:
            return
        if recalled:
            why = "it is asked for back"
        elif time.monotonic() >= grant.until:
            why = "its hold time was over"
        elif asked:
            why = f"{self._connector.server} does not know of it any more"
        else:
            why = "it was broken, or its holder was taken for dead"
        self.loss = LockLoss(os.fsdecode(grant.name), why, recalled)


# Locks that are wanted together, while some are held and another is waited for. They are renewed over a connection of
# their own, since a server runs what comes behind a LOCK that waits only after the grant.


def reply_while_holding(
    connection: ServerConnection, connector: ServerConnector, got: Sequence[HeldGrant], hold: float, deadline: float
) -> Reply:
    """The next reply to a claim that waits; `got` is what it holds, for `hold` seconds from when that was asked for.

    Raises TimeIsUp at the deadline, LinkLost also if one of those that it held is lost.
    """
    beside = ServerConnector(connector.settings, connector.wait)
    beside.address, beside.server = connector.address, connector.server
    lease = Lease(hold, min(held.asked for held in got))
    keepalive = KeepAlive(beside, got, lease)
    try:
        while True:
            try:
                return connection.reply(min(deadline, lease.renew_at))
            except DeadlineExceeded:
                if time.monotonic() >= deadline:
                    raise
            _renew(keepalive, lease, deadline)
    finally:
        beside.drop()


def _renew(keepalive: KeepAlive, lease: Lease, deadline: float) -> None:
    while lease.renew_at <= time.monotonic() < deadline:
        keepalive.step(min(deadline, lease.expires_at))
        if keepalive.loss is not None or time.monotonic() >= lease.expires_at:
            raise ConnectionLost(errno.ECANCELED, "what was held already was lost")
