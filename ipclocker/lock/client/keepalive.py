"""Keeping a lock while it is held: listen for its loss, renew its lease, and reconnect to its server.

A step does one of these and then returns, so that the caller can look at its own times between two; no step waits
beyond the time that it was given. A grant that was reported lost stays lost. The caller has the lease, and sees from
it that it was not renewed in time; this module does not report that.

The answer to a renewal may be late because the way is long, or never come because the connection is dead; from here the
two look the same. So after a part of the time a new connection is tried, and what comes first counts: its answer, or
the one over the old connection, which is good until the lease is over.

Times are seconds on the monotonic clock.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from ...net.text import decode_text
from ..model import HeldGrant
from ..wire.replies import Answer, Lost, Recall, Reply
from .connection import ANSWER_WITHIN, CONNECT_WITHIN, READ, ConnectionLost, DeadlineExceeded, ServerConnection
from .connector import FIRST_PAUSE, ServerConnector
from .lease import Lease
from .steps import Steps, run


class LockLoss(NamedTuple):
    """The loss of the lock `name`, and why; a lock that is `recalled` still stands until it is released."""

    name: str
    why: str
    recalled: bool = False


class _Inquiry:
    """A CHECK or RENEW of all grants, sent in one packet: those that the server has not answered for yet."""

    def __init__(self, connection: ServerConnection, grants: Iterable[HeldGrant], sent_at: float) -> None:
        self.connection = connection
        self.unanswered = deque(grants)
        self.sent_at = sent_at


class KeepAlive:
    """Keeps grants, all of one server and with tokens, over a connector that stays with that server.

    With a `lease` all are renewed together. `loss` is the first loss that was reported.
    """

    def __init__(self, connector: ServerConnector, grants: Iterable[HeldGrant], lease: Lease | None = None) -> None:
        self.lease = lease
        self.loss: LockLoss | None = None
        self._connector = connector
        self._grants = {(grant.name, grant.token): grant for grant in grants}
        self._inquiry: _Inquiry | None = None  # over the connector's connection
        self._late: _Inquiry | None = None  # over the one before, which was slow to answer
        self._checked_on = connector.connection  # the connection on which the server reports losses
        # A lease of S seconds is renewed from S/3 to 2S/3, which leaves S/3 for tries. With S/6 for an answer there is
        # room for a second try; with S/10 for a connection (0.3 s at least: TCP repeats a lost packet only after 1 s,
        # a new connection is faster) and S/30 for a pause, for one more after a server that restarts.
        self._patience = ANSWER_WITHIN if lease is None else min(ANSWER_WITHIN, max(0.5, lease.seconds / 6))
        self._connect_within = CONNECT_WITHIN if lease is None else min(CONNECT_WITHIN, max(0.3, lease.seconds / 10))
        # Seconds between two looks at whether a late answer has come.
        self._look_again = 0.0 if lease is None else min(1.0, lease.seconds / 60)

    @property
    def problem(self) -> str:
        """The reason why the server does not renew; empty if it was not asked to."""
        if self._connector.connection is None:
            return str(self._connector.unavailable())
        return f"the lock server {self._connector.server} does not answer" if self._inquiry or self._late else ""

    def step(self, until: float) -> None:
        """Do what is due, or wait for it or for a report of the server; return at `until` at the latest."""
        run(self.steps(until), self._connector.wait)

    def steps(self, until: float) -> Steps[None]:
        """Do what `step` does, and leave the waiting to the caller."""
        try:
            yield from self._step(until)
        except ConnectionLost as problem:
            self._inquiry = None
            self._connector.on_lost(problem)
        self._receive_late()

    def close(self) -> None:
        """End the inquiries: a connection whose answers nobody waits for any more is of no use to others."""
        self._drop_late()
        if self._inquiry is not None:
            self._inquiry = None
            self._connector.close()

    def _step(self, until: float) -> Steps[None]:
        connector = self._connector
        wake = connected_by = until
        if self._late is not None:
            wake = min(until, time.monotonic() + self._look_again)
            connected_by = until - self._look_again  # so that there is one look more at the late answer
        if connector.connection is None:
            if self.lease is not None:  # the less time is left, the more often it is tried
                left = self.lease.stop_at - time.monotonic()
                connector.longest_pause = max(FIRST_PAUSE, min(self.lease.seconds / 30, left / 4))
            ways = 2 if connector.space is None else 4  # it may have to tell its lock space, too
            within = max(self._connect_within, ways * connector.connect_seconds)
            if not (yield from connector.pausing(wake)):
                return
            if not (yield from connector.trying_to_connect(min(connected_by, time.monotonic() + within))):
                return
        assert connector.connection is not None
        if self._inquiry is None and self._is_due(connector.connection):
            self._inquiry = yield from self._verify(connector.connection, until)
        yield from self._receive(connector.connection, wake)

    def _is_due(self, connection: ServerConnection) -> bool:
        if self._checked_on is not connection:
            return True
        return self.lease is not None and time.monotonic() >= self.lease.renew_at

    def _verify(self, connection: ServerConnection, until: float) -> Steps[_Inquiry]:
        """Ask whether the grants stand, or renew them, in one packet; from then on the server reports their loss."""
        word = b"CHECK" if self.lease is None else b"RENEW"
        self._checked_on = connection
        inquiry = _Inquiry(connection, self._grants.values(), time.monotonic())
        lines = b"".join(grant.line(word) for grant in inquiry.unanswered)
        yield from connection.sending_request(lines[:-1], until, tell=1)
        return inquiry

    def _receive(self, connection: ServerConnection, until: float) -> Steps[None]:
        """Handle what has arrived; if nothing has, wait until something does or a request is due."""
        inquiry = self._inquiry
        if not connection.has_unread:
            renew_at = inf if self.lease is None else self.lease.renew_at
            patience = max(self._patience, 2 * self._connector.connect_seconds)
            due = renew_at if inquiry is None else inquiry.sent_at + patience
            if (yield connection.sock, READ, min(until, due)):
                connection.receive()
            elif inquiry is not None and time.monotonic() >= due:
                if self.lease is not None:
                    self._drop_late()
                    self._late = inquiry
                    self._connector.connection = None  # it is not closed
                raise ConnectionLost(errno.ETIMEDOUT, "it does not answer")
        for reply in connection.pending():
            self._handle(inquiry, reply)
        if inquiry is not None and not inquiry.unanswered:
            self._inquiry = None
            self._drop_late()

    def _receive_late(self) -> None:
        """Handle what has arrived over the connection that was slow; once it has answered, it is the one to use."""
        late, connector = self._late, self._connector
        if late is None:
            return
        try:
            late.connection.receive()
            for reply in late.connection.pending():
                self._handle(late, reply)
        except ConnectionLost:
            self._drop_late()
            return
        if not late.unanswered:
            connector.close()
            connector.connection = self._checked_on = late.connection
            connector.address = late.connection.address
            self._inquiry = self._late = None

    def _drop_late(self) -> None:
        if self._late is not None:
            self._late.connection.close()
            self._late = None

    def _handle(self, inquiry: _Inquiry | None, reply: Reply) -> None:
        if isinstance(reply, (Lost, Recall)):
            grant = self._grants.get((reply.name, reply.token))
            if grant is not None:
                self._record_loss(grant, isinstance(reply, Recall))
        elif isinstance(reply, Answer) and inquiry is not None and inquiry.unanswered:
            grant = inquiry.unanswered.popleft()
            if reply.error in (b"lost", b"recalled") or reply.current is False:
                self._record_loss(grant, reply.error == b"recalled", asked=True)
            elif not (reply.renewed or reply.current):
                raise ConnectionLost(errno.EPROTO, f"it answers {decode_text(reply.error or b'nothing')}")
            elif not inquiry.unanswered:
                self._connector.on_reply()
                if self.lease is not None:
                    self.lease.renewed(inquiry.sent_at)

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
        self.loss = LockLoss(decode_text(grant.name), why, recalled)


# Several locks that are wanted together, while some are held and another is waited for. They are renewed over a
# connection of their own, since a server runs what comes behind a LOCK that waits only after the grant.


def reply_while_holding(
    connection: ServerConnection, connector: ServerConnector, got: Sequence[HeldGrant], hold: float, deadline: float
) -> Reply:
    """Wait for the next reply to a LOCK in the queue, and meanwhile renew the `got`, which have `hold` seconds each.

    Raises DeadlineExceeded at the deadline; ConnectionLost, also if one of the `got` is lost.
    """
    second = connector.beside(connector.wait)
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
        keepalive.close()
        second.close()


def _renew(keepalive: KeepAlive, lease: Lease, deadline: float) -> None:
    while lease.renew_at <= time.monotonic() < deadline:
        keepalive.step(min(deadline, lease.expires_at))
        if keepalive.loss is not None or time.monotonic() >= lease.expires_at:
            raise ConnectionLost(errno.ECANCELED, "what was held already was lost")
