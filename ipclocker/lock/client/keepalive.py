"""Keeping a lock while it is held: listen for its loss, renew its lease, and reconnect to its server.

A step does one of these and then returns, so that the caller can look at its own times between two; no step waits
beyond the time that it was given. A grant that was reported lost stays lost. The caller has the lease, and sees from
it that it was not renewed in time; this module does not report that.

Times are seconds on the monotonic clock.
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
    """The loss of the lock `name`, and why; a lock that is `recalled` still stands until it is released."""

    name: str
    why: str
    recalled: bool = False


class KeepAlive:
    """Keeps grants, all of one server and with tokens, over a connector that stays with that server.

    With a `lease` all are renewed together. `loss` is the first loss that was reported.
    """

    def __init__(self, connector: ServerConnector, grants: Iterable[HeldGrant], lease: Lease | None = None) -> None:
        self.lease = lease
        self.loss: LockLoss | None = None
        self._connector = connector
        self._grants = {(grant.name, grant.token): grant for grant in grants}
        self._unanswered: deque[HeldGrant] = deque()  # about which the server was asked and has not answered yet
        self._sent_at = -inf
        self._checked_on = connector.connection  # the connection on which the server reports losses
        # A lease of S seconds is renewed from S/3 to 2S/3, which leaves S/3 for tries. With S/6 for an answer there is
        # room for a second try; with S/10 for a connection (0.3 s at least: TCP repeats a lost packet only after 1 s,
        # a new connection is faster) and S/30 for a pause, for one more after a server that restarts.
        self._patience = ANSWER_WITHIN if lease is None else min(ANSWER_WITHIN, max(0.5, lease.seconds / 6))
        self._connect_within = CONNECT_WITHIN if lease is None else min(CONNECT_WITHIN, max(0.3, lease.seconds / 10))
        if lease is not None:
            connector.longest_pause = max(FIRST_PAUSE, lease.seconds / 30)

    @property
    def problem(self) -> str:
        """The reason why the server does not renew; empty if it was not asked to."""
        if self._connector.connection is None:
            return str(self._connector.unavailable())
        return f"the lock server {self._connector.server} does not answer" if self._unanswered else ""

    def step(self, until: float) -> None:
        """Do what is due, or wait for it or for a report of the server; return at `until` at the latest."""
        connector = self._connector
        try:
            if connector.connection is None and not connector.connect_after_pause(until, self._connect_within):
                return
            assert connector.connection is not None
            if not self._unanswered and self._is_due(connector.connection):
                self._verify(connector.connection, until)
            self._receive(connector.connection, until)
        except ConnectionLost as problem:
            self._unanswered.clear()
            connector.on_lost(problem)

    def _is_due(self, connection: ServerConnection) -> bool:
        if self._checked_on is not connection:
            return True
        return self.lease is not None and time.monotonic() >= self.lease.renew_at

    def _verify(self, connection: ServerConnection, until: float) -> None:
        """Ask whether the grants stand, or renew them, in one packet; from then on the server reports their loss."""
        word = b"CHECK" if self.lease is None else b"RENEW"
        self._checked_on = connection
        self._unanswered.extend(self._grants.values())
        self._sent_at = time.monotonic()
        lines = b"".join(grant.line(word) for grant in self._unanswered)
        connection.send_request(lines[:-1], b"", until, tell=1)

    def _receive(self, connection: ServerConnection, until: float) -> None:
        """Handle what has arrived; if nothing has, wait until something does or a request is due."""
        if not connection.has_unread:
            renew_at = inf if self.lease is None else self.lease.renew_at
            due = self._sent_at + self._patience if self._unanswered else renew_at
            if self._connector.wait(connection.sock, READ, min(until, due)):
                connection.receive()
            elif self._unanswered and time.monotonic() >= due:
                raise ConnectionLost(errno.ETIMEDOUT, "it does not answer")
        for reply in connection.pending():
            self._handle(reply)

    def _handle(self, reply: Reply) -> None:
        if isinstance(reply, (Lost, Recall)):
            grant = self._grants.get((reply.name, reply.token))
            if grant is not None:
                self._record_loss(grant, isinstance(reply, Recall))
        elif isinstance(reply, Answer) and self._unanswered:
            grant = self._unanswered.popleft()
            if reply.error in (b"lost", b"recalled") or reply.current is False:
                self._record_loss(grant, reply.error == b"recalled", asked=True)
            elif not (reply.renewed or reply.current):
                raise ConnectionLost(errno.EPROTO, f"it answers {os.fsdecode(reply.error or b'nothing')}")
            elif not self._unanswered:
                self._connector.on_reply()
                if self.lease is not None:
                    self.lease.renewed(self._sent_at)

    def _record_loss(self, grant: HeldGrant, recalled: bool, asked: bool = False) -> None:
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


# Several locks that are wanted together, while some are held and another is waited for. They are renewed over a
# connection of their own, since a server runs what comes behind a LOCK that waits only after the grant.


def reply_while_holding(
    connection: ServerConnection, connector: ServerConnector, got: Sequence[HeldGrant], hold: float, deadline: float
) -> Reply:
    """Wait for the next reply to a LOCK in the queue, and meanwhile renew the `got`, which have `hold` seconds each.

    Raises DeadlineExceeded at the deadline; ConnectionLost, also if one of the `got` is lost.
    """
    second = ServerConnector(connector.settings, connector.wait)
    second.address, second.server = connector.address, connector.server
    lease = Lease(hold, min(held.asked for held in got))
    keepalive = KeepAlive(second, got, lease)
    try:
        while True:
            try:
                return connection.reply(min(deadline, lease.renew_at))
            except DeadlineExceeded:
                if time.monotonic() >= deadline:
                    raise
            _renew(keepalive, lease, deadline)
    finally:
        second.close()


def _renew(keepalive: KeepAlive, lease: Lease, deadline: float) -> None:
    while lease.renew_at <= time.monotonic() < deadline:
        keepalive.step(min(deadline, lease.expires_at))
        if keepalive.loss is not None or time.monotonic() >= lease.expires_at:
            raise ConnectionLost(errno.ECANCELED, "what was held already was lost")
