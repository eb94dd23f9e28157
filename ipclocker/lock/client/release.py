"""Releasing locks: UNLOCK is sent until the server has answered, or the time for that is over.

An UNLOCK names the grant by its token, if that is known. So one that arrives late, from a connection that was given up
meanwhile, frees no other grant. Servers that know no tokens there skip them. What could not be released is released
before the same server is asked for a lock again, or another one of its lock space: it may hold it still, for a session
that nobody uses any more.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import NamedTuple, Optional

from ...errors import IpclockerError, ServerRefused
from ...net.address import Address
from ...net.text import decode_text
from ..model import HeldGrant
from ..wire.replies import Space
from .connection import ANSWER_WITHIN, ConnectionLost, DeadlineExceeded, ServerConnection
from .connector import FIRST_PAUSE, ServerConnector, jittered
from .session import Owner
from .space_hosts import longest_pause

_AT_ONCE = 60  # UNLOCKs on the way without an answer; a server reads no more while 64 answers wait for its disk
_MOST_DEBTS = 64  # of a program that goes on asking a server that does not answer; behind each LOCK goes an UNLOCK, too
_SHORTEST_TRY = 0.02  # seconds; in less there is no answer to be had

# The names that one LOCK asked for, and the grant that came of it, if it is known.
Asked = tuple[tuple[bytes, ...], Optional[HeldGrant]]


class _Debt(NamedTuple):
    """What is to be released: at which server, whose, and which."""

    address: Address
    space: Space | None
    owner: Owner
    asked: Sequence[Asked]

    def may_be_at(self, connection: ServerConnection) -> bool:
        """Tell if it is that server, or one that serves the same lock space, or may do so.

        If the server went before it told which space it served, it may have been any that is shared. The session is
        nobody else's, so an UNLOCK for it is no harm in another space.
        """
        there = connection.space
        if there is None or connection.address == self.address:
            return connection.address == self.address
        return there.ttl is not None if self.space is None else there.identity == self.space.identity


class Releaser:
    """Releases locks over a connector. What is to be released stays noted as a debt until a server has said it is."""

    def __init__(self, connector: ServerConnector) -> None:
        self._connector = connector
        self._debts: list[_Debt] = []

    @property
    def owes(self) -> bool:
        """True if a server may still hold a lock that is to be released."""
        return bool(self._debts)

    def owe(self, owner: Owner, asked: Sequence[Asked]) -> None:
        """Note what is to be released at the server that the connector stays with."""
        if self._connector.address is not None and asked:
            debt = _Debt(self._connector.address, self._connector.space, owner, asked)
            self._debts = [*self._debts[1 - _MOST_DEBTS :], debt]

    def release(self, within: float, check: bool = False) -> bool:
        """Release what is owed since the last time, over a new connection if need be; False if a grant did not stand.

        That is found out if `check` is set, unless the answer is lost. Raises ServerUnavailable if the server does not
        answer `within` so many seconds, ServerRefused.
        """
        debt = self._debts[-1]
        stood = self._pay(debt, time.monotonic() + within, check)
        self._forget(debt)
        return stood

    def release_all(self, within: float) -> None:
        """Release all that is owed, at whichever server, in so many seconds. Raises as `release` does, at the end."""
        deadline = time.monotonic() + within
        problem: IpclockerError | None = None
        for debt in self._debts:
            try:
                self._pay(debt, deadline, False)
            except IpclockerError as error:
                problem = error
            else:
                self._forget(debt)
            self._connector.close()  # the next lock is to be asked for where it would be without this
        if problem is not None:
            raise problem

    def _forget(self, debt: _Debt) -> None:
        self._debts = [other for other in self._debts if other is not debt]

    def _pay(self, debt: _Debt, deadline: float, check: bool) -> bool:
        """Send the UNLOCKs until they are answered.

        A connection that is open already may be dead without a sign of it. So it gets half of the time at most. A new
        one gets the rest, up to what any answer gets.
        """
        connector = self._connector
        if not connector.stays_with(debt.address, debt.space):
            connector.close()
            connector.stay(debt.address, debt.space)
            connector.server = str(debt.address)
        connector.close_unsettled()
        pause = FIRST_PAUSE
        while True:
            now = time.monotonic()
            until = min(deadline if connector.connection is None else (now + deadline) / 2, now + ANSWER_WITHIN)
            try:
                connection = connector.connection or connector.connect(until)
                connection.receive()  # if the server is gone since, that is said here
                # Only once: after an answer that was lost it would say nothing, since the UNLOCK behind it may be done.
                check_now, check = check, False
                stood = _send_unlocks(connection, debt.owner, debt.asked, until, check_now)
                connector.settle()
                return stood
            except (OSError, DeadlineExceeded) as problem:
                connector.close()
                left = deadline - time.monotonic()
                if left <= _SHORTEST_TRY:
                    raise connector.unavailable(problem) from None
            except ServerRefused:
                connector.close()
                raise
            if connector.asks_others:
                continue
            # From the start of one try to the next; half of what is left, so that the last is a moment before the end.
            connector.wait(None, 0, now + min(jittered(pause), left / 2))
            pause = min(pause * 2, longest_pause(connector.space) / 2)

    def release_now(self, owner: Owner, asked: Sequence[Asked]) -> None:
        """Release what was asked for, over the connection that there is. Raises ConnectionLost, ServerRefused."""
        try:
            connector = self._connector
            until = min(time.monotonic() + ANSWER_WITHIN, connector.answer_by)
            _send_unlocks(connector.connected(), owner, asked, until)
        except DeadlineExceeded:
            raise ConnectionLost(errno.ETIMEDOUT, "it does not answer") from None

    def release_what_is_owed_here(self) -> None:
        """Release what is owed to the server that is connected. Raises as `release_now` does.

        What was asked for without a session is left: the same user asks for the same lock, and is granted it once more.
        """
        if not self._debts:
            return
        self._connector.ask_space(self._connector.answer_by)
        connection = self._connector.connected()
        for debt in self._debts:
            if debt.may_be_at(connection):
                if debt.owner.get("session"):
                    self.release_now(debt.owner, debt.asked)
                self._forget(debt)


def _send_unlocks(
    connection: ServerConnection, owner: Owner, asked: Sequence[Asked], deadline: float, check: bool = False
) -> bool:
    """Send an UNLOCK for each that was asked for, and wait for all answers; False if a grant did not stand any more.

    Raises ConnectionLost, DeadlineExceeded, ServerRefused.
    """
    if len(asked) == 1:
        held = asked[0][1]
        if held is not None and held.token is not None:
            return _send_unlock(connection, owner, held, deadline, check)
    checked = [held for _, held in asked if held is not None and held.token is not None] if check else []
    first = b"".join(held.line(b"CHECK") for held in checked)  # in one packet with the UNLOCK
    stood = True
    for number, (names, held) in enumerate(asked):  # one by one, as every server knows it
        if held is None or held.token is None:
            connection.send_request(b"UNLOCK", first, deadline, **owner, locks=names)
        else:
            connection.send_request(held.line(b"UNLOCK")[:-1], first, deadline, **owner, locks=(held.name,))
        if first:
            for _ in checked:
                stood &= connection.answer(deadline).current is not False
            first = b""
        if number >= _AT_ONCE:
            _take_answer(connection, deadline)
    for _ in asked[:_AT_ONCE]:
        _take_answer(connection, deadline)
    return stood


def _send_unlock(connection: ServerConnection, owner: Owner, held: HeldGrant, deadline: float, check: bool) -> bool:
    """Do the same for one grant whose token is known, as nearly always."""
    first = held.line(b"CHECK") if check else b""
    connection.send_request(held.line(b"UNLOCK")[:-1], first, deadline, **owner, locks=(held.name,))
    stood = not check or connection.answer(deadline).current is not False
    _take_answer(connection, deadline)
    return stood


def _take_answer(connection: ServerConnection, deadline: float) -> None:
    error = connection.answer(deadline).error
    if error is not None:
        raise ServerRefused(decode_text(error), str(connection.address))
