"""The client's side of a lock, from the request to the release; whatever breaks in between, it is granted once.

Each time that a lock is acquired, that is under a session of its own, up to the release: so no two share a lock by
accident, and what was on its way over a connection that was given up concerns no later grant. Whenever the connection
breaks it is asked for again under the same session: a server that had granted the lock grants the same once more, and
one that had not puts it into the queue. Only a user name that the program has chosen has no sessions: all who give that
name are one holder, as for the Perl programs, whichever process they are in.

From the moment that a server was reached until the lock is
released the acquisition stays with the lock space of that server, whichever server of the list serves it by then. One
that waits says for how long it has waited when it comes back, and so has its place again. What was asked for and is not
wanted any more (a time-out, a signal, an exception) is released over a connection of its own, since the
grant may be on its way at that very moment.

A lock that was waited for is not taken to be held before the server has said, after the client's confirmation,
that the grant still stands: the process may have been stopped for longer than the server waits for a sign of life.

Several locks that are wanted together are asked for one after the other in the order of their names, which is the
same for everybody: so no two that hold a part can wait for each other. If a connection breaks or a grant is lost in
between, all that was granted is released and the first name is asked for again, since the order must hold then, too.
What is held is renewed when a third of its time is over, while it is waited for the rest and from one to the next.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING

from ...errors import IpclockerError, LockLost, ServerRefused, ServerUnavailable, UsageError
from ...net.address import Address
from ...net.text import decode_text
from ..model import HeldGrant
from ..wire.replies import Answer, LookFor, Lost, Recall, Reply, Space, Waiting
from .connection import (
    ConnectionLost,
    DeadlineExceeded,
    ServerConnection,
    Value,
    Wait,
    prompt_answer,
    prompt_reply,
    wait_ready,
)
from .connector import FIRST_PAUSE, ServerConnector, jittered
from .holder_process import is_gone, report_gone
from .lock_variables import lock_variables
from .release import Releaser
from .session import Session
from .settings import LockSettings, check_lengths
from .space_hosts import LONGEST_PAUSE

if TYPE_CHECKING:
    from .listener import AcquisitionListener

# Seconds to reach the server again and release a lock. A caller waits for it at its end, so it is shorter than the
# wait for an answer; a server that is away for longer frees the lock by its hold time or its holder's process.
RELEASE_WITHIN = 5.0


class _AskAgain(Exception):
    """The grant does not stand any more, or the lock may come free at once."""


class _TakenOff(_AskAgain):
    """The request was taken off the queue: others under the same user name ask for the same, or have released it."""


class LockAcquisition:
    """One lock, or several together, asked for under the settings' user, else HOST_PID_USER and a session of its own.

    `grants` is what it holds: one lock, or all if all are wanted together. If `subscribes` is set, the server is asked
    to say over the connection when a grant is lost or recalled. Raises UsageError for a name that is too long.
    """

    def __init__(
        self, settings: LockSettings, listener: AcquisitionListener, wait: Wait = wait_ready, suffix: str = ""
    ) -> None:
        check_lengths(settings.names)
        self.connector = ServerConnector(settings, wait, listener.retry)
        self.grants: tuple[HeldGrant, ...] = ()
        self.busy = b""  # the lock that was busy when it was last asked for
        self.holder = ""  # who held it; empty if there was no time to ask for it
        self.holder_processes: dict[bytes, LookFor] = {}  # by lock, as far as the server told of those that were busy
        self.asked_at: Address | None = None  # the server that was asked last
        self.asked_space: Space | None = None  # and its lock space, if it has told that
        self.subscribes = False
        self._listener = listener
        self._session = Session(suffix)
        self._reported_gone: set[LookFor] = set()
        # The names of each LOCK that was sent since nothing was held, and the grant, if it is known.
        self._asked: dict[tuple[bytes, ...], HeldGrant | None] = {}
        self._releaser = Releaser(self.connector)
        self._waited = False
        self._queued = False  # the server has said that the lock is busy
        self._waits_since: dict[tuple[bytes, ...], float] = {}  # for which of the names

    @property
    def settings(self) -> LockSettings:
        """The parameters of the request: which locks, from which servers, for how long."""
        return self.connector.settings

    @settings.setter
    def settings(self, settings: LockSettings) -> None:
        check_lengths(settings.names)
        self.connector.settings = settings

    @property
    def held(self) -> HeldGrant | None:
        """The grant that it holds; the first if there are several, None if there is none."""
        return self.grants[0] if self.grants else None

    # Asking

    @property
    def may_hold(self) -> bool:
        """True if a server may hold a lock for it: one that is held, or that is still to be released."""
        return bool(self._asked) or self._releaser.owes

    def acquire(self, wait: bool, deadline: float, latest: float = inf) -> bool:
        """Get the lock, or renew it; False if it is busy and `wait` is false, or the deadline passes in the queue.

        `latest` is when all that belongs to it is over. With it each server is tried once if `wait` is false.
        Raises ServerUnavailable if no server answers before the deadline or within the settings' tries, ServerRefused,
        LockLost if it holds a lease that was recalled. After False and after an error nothing is held; `may_hold` is
        true then if the server has not answered to that.
        """
        connector = self.connector
        connector.latest = latest
        connector.close_unsettled()
        servers: Iterator[ServerConnection] | None = None
        pause = FIRST_PAUSE
        self._waited = self._queued = False
        self._waits_since.clear()
        if not self.grants:
            self.give_up()  # an exception may have kept the last call from doing so
            self._session.begin(self.settings)
        try:
            while True:
                if connector.connection is None and not connector.reconnect(deadline):
                    if self.grants:
                        raise connector.unavailable()
                    if connector.address is not None:
                        # Left for another one, it may have granted what it was asked for. That one needs time, too.
                        self.abandon(within=min(1.0, max(0.0, deadline - time.monotonic()) / 4))
                        self._session.begin(self.settings)
                    servers = servers or connector.each_server(deadline, once=not wait and latest < inf)
                    connector.connection = next(servers)
                try:
                    got = self._ask_for_all(wait, deadline)
                    connector.settle()
                    return got
                except ConnectionLost as problem:
                    connector.on_lost(problem)
                except _AskAgain as again:
                    if isinstance(again, _TakenOff):  # two that take each other off the queue are to do so seldom
                        connector.wait(None, 0, min(deadline, time.monotonic() + jittered(pause)))
                        pause = min(pause * 2, LONGEST_PAUSE / 2)
                    if wait and time.monotonic() >= deadline:
                        raise DeadlineExceeded from None
        except DeadlineExceeded:
            queued = self._queued
            self.abandon()
            if not queued and time.monotonic() >= latest:
                raise connector.unavailable(TimeoutError("no answer in time")) from None
            return False
        except BaseException:
            self.abandon()
            raise
        finally:
            connector.latest = inf

    def _ask_for_all(self, wait: bool, deadline: float) -> bool:
        """Ask for each lock that is wanted, once; False if one of them is busy."""
        groups = self.settings.groups
        got: list[HeldGrant] = []
        self._releaser.release_what_is_owed_here()
        if len(groups) > 1 and any(self._asked.values()) and self._keeps_part():
            return True
        for names in groups:
            if wait and got and time.monotonic() >= deadline:
                self.busy, self.holder = names[0], ""
                raise DeadlineExceeded
            if got and self._is_due(got):
                got = self._renew(got)
            held = self._ask(names, got, wait, deadline, self.settings.min_hold if len(groups) == 1 else 0.0)
            if held is None:
                if got:
                    self.abandon()
                self.grants = ()
                return False
            got.append(held)
        if len(got) > 1 and (self._waited or self._is_due(got)):
            got = self._renew(got)
        if len(got) > 1 and self.settings.min_hold:  # only now: a part that is given back is not to be kept
            got = [self._ask_again(names, got, deadline) for names in groups]
        self.grants = tuple(got)
        if self._waited:
            self._listener.obtained()
        return True

    def _ask_again(self, names: tuple[bytes, ...], got: Sequence[HeldGrant], deadline: float) -> HeldGrant:
        """Ask for a lock that is held, with its min-hold; the grant. Raises _AskAgain if it does not stand any more."""
        held = self._ask(names, got, False, deadline, self.settings.min_hold)
        if held is None or (held.name, held.token) not in {(grant.name, grant.token) for grant in got}:
            raise _AskAgain
        return held

    def _is_due(self, grants: Sequence[HeldGrant]) -> bool:
        """Tell if a third of the time of one of the grants is over, so that they are to be renewed."""
        hold = self.settings.hold
        return hold > 0 and time.monotonic() >= min(held.asked for held in grants) + hold / 3

    def _keeps_part(self) -> bool:
        """Renew all locks that are held together; if one does not stand, release them all and return False."""
        if self.grants:
            with contextlib.suppress(_AskAgain):
                self.grants = tuple(self._renew(self.grants))
                return True
        self.grants = ()
        self._releaser.release_now(self._session.owner(self.connector.connection), list(self._asked.items()))
        self._asked.clear()
        self._session.begin(self.settings)
        return False

    def _ask(
        self, names: tuple[bytes, ...], got: Sequence[HeldGrant], wait: bool, deadline: float, min_hold: float
    ) -> HeldGrant | None:
        """Ask for the first of the names that is free, while the `got` are held; the grant, None if all are busy.

        Raises _AskAgain if the answer came too late: the grant does not stand any more; _TakenOff.
        """
        asked = time.monotonic()
        connection = self.connector.connected(deadline)
        self.connector.stay(connection.address, connection.space)  # from here on there may be a grant
        self.asked_at, self.asked_space = connection.address, connection.space
        self.holder_processes.clear()
        self._asked[names] = None
        variables: dict[str, Value] = {**self._session.owner(connection), "locks": names, "block": int(wait)}
        if self.subscribes or connection.has_sent("tell"):
            variables["tell"] = int(self.subscribes)
        waits_since = self._waits_since.setdefault(names, asked)
        if waits_since < asked or connection.has_sent("waited"):
            variables["waited"] = asked - waits_since
        connection.send_request(b"LOCK", **variables, **lock_variables(self.settings, connection, min_hold))
        answer, waited, ask_again = self._await_answer(connection, names, got, wait, deadline)
        if not answer.locked:
            self.busy, self.holder = names[0], decode_text(answer.owner)
            # A classic server would still grant the lock to this connection some time, so it has to go.
            self.connector.close()
            if ask_again:
                raise _AskAgain
            if waited:
                raise _TakenOff
            del self._asked[names]
            if not got:
                self.connector.leave()
            return None
        if answer.name not in names:
            raise ConnectionLost(errno.EPROTO, "it grants a lock that was not asked for")
        self._check_echo(answer, min_hold)
        self._waited |= waited
        self._waits_since.pop(names, None)
        connection.set_by_server("locks", (answer.name,))
        held = self._held_since(asked, answer.name, answer.token)
        if answer.token is None:
            if self.settings.lease:
                raise ServerUnavailable(
                    f"the lock server {self.connector.server} knows no leases: use one of this release"
                )
            self.connector.close()  # for a classic server every open connection is work, and of no use
            if waited and self.settings.hold:
                raise _AskAgain  # it does not say when the hold time began; the same LOCK again begins a new one
        elif waited:
            (held,) = self._renew([held], held.line(b"GOT"))
        self._asked[names] = held
        return held

    def _check_echo(self, answer: Answer, min_hold: float) -> None:
        """See that the lock was granted with what was asked for, which an older server passes over.

        Raises ServerUnavailable.
        """
        for what, is_known in (
            ("slots (nor shared locks)", answer.slots == self.settings.slots),
            ("min-hold", not min_hold or answer.min_hold > 0),
        ):
            if not is_known:
                raise ServerUnavailable(
                    f"the lock server {self.connector.server} knows no {what}: use one of this release"
                )

    def _await_answer(
        self,
        connection: ServerConnection,
        names: tuple[bytes, ...],
        got: Sequence[HeldGrant],
        wait: bool,
        deadline: float,
    ) -> tuple[Answer, bool, bool]:
        """Read the answer to a LOCK; with it, whether that took a wait, and whether to ask once more."""
        waited = ask_again = False
        while True:
            if waited:
                reply = self._next_in_queue(connection, got, deadline)
            else:
                until = deadline if wait or self.connector.latest < inf else inf
                reply = prompt_reply(connection, min(until, self.connector.answer_by))
            self.connector.on_reply()
            self.asked_space = self.connector.space
            if isinstance(reply, Waiting):
                waited = self._queued = True
                # After a restart of the server's host, the places in its queue are theirs who come back in time. A
                # server that tells no lock space is an old one, which gives nobody his place back.
                if connection.space is not None:
                    connection.notice_soon()
                self.busy, self.holder = names[0], decode_text(reply.holder)
                self._listener.waiting(decode_text(names[0]), self.holder)
            elif isinstance(reply, LookFor):
                self.holder_processes[reply.name] = reply
                if reply not in self._reported_gone and is_gone(reply):
                    self._reported_gone.add(reply)
                    report_gone(reply, connection.address, self.connector.wait)
                    ask_again = True
            elif isinstance(reply, (Lost, Recall)):
                if any((held.name, held.token) == (reply.name, reply.token) for held in got):
                    raise ConnectionLost(errno.ECANCELED, "what was held already was lost")
            elif isinstance(reply, Answer):
                self._refuse_error(reply)
                return reply, waited, ask_again

    def _renew(self, grants: Sequence[HeldGrant], first: bytes = b"") -> list[HeldGrant]:
        """Ask whether grants stand, which starts their hold times again, in full. Raises _AskAgain if one does not.

        `first` is sent in front of it.
        """
        asked = time.monotonic()
        word = b"RENEW" if self.settings.hold else b"CHECK"
        named = [grant for grant in grants if grant.token is not None]
        if named:
            connection = self.connector.connected()
            lines = b"".join(grant.line(word) for grant in named)
            tell: dict[str, Value] = {"tell": 1} if self.subscribes else {}
            connection.send_request(lines[:-1], first, **tell)
            answers = [prompt_answer(connection) for _ in named]
            if any(answer.current is False or answer.error in (b"lost", b"recalled") for answer in answers):
                raise _AskAgain
            if not all(answer.renewed or answer.current for answer in answers):
                raise ConnectionLost(errno.EPROTO, "it does not say whether a grant stands")
        return [grant if grant.token is None else self._held_since(asked, grant.name, grant.token) for grant in grants]

    def _held_since(self, asked: float, name: bytes, token: int | None) -> HeldGrant:
        settings = self.settings
        return HeldGrant(name, token, asked, asked + settings.hold if settings.hold and not settings.lease else inf)

    def _next_in_queue(self, connection: ServerConnection, got: Sequence[HeldGrant], deadline: float) -> Reply:
        """Read the next reply while the request is in the queue; meanwhile renew what is held already."""
        if not (got and self.settings.hold) or got[0].token is None:
            return connection.reply(deadline)
        from .keepalive import reply_while_holding  # only here, for an import that most runs do without

        return reply_while_holding(connection, self.connector, got, self.settings.hold, deadline)

    def _refuse_error(self, answer: Answer) -> None:
        if answer.error is not None:
            self.connector.close()
            if answer.error == b"session_over":  # it was released elsewhere, as by a fork of this process
                self.grants = ()
                self._asked.clear()
                self._session.begin(self.settings)
                raise _AskAgain
            if answer.error == b"recalled":
                names = ", ".join(map(decode_text, self.settings.names))
                raise LockLost(f"the lock {names} was asked for back (lockstat break): it is given back")
            if answer.error == b"bad_slots":
                names = ", ".join(map(decode_text, self.settings.names))
                raise UsageError(f"the lock {names} is held with another number of slots: give it back first")
            raise ServerRefused(decode_text(answer.error), self.connector.server)

    # Releasing

    def release(self, within: float | None = None) -> bool:
        """Release what is held, or is still to be released; False if the server says that a grant was lost before.

        Raises ServerUnavailable if no server of the lock space answers `within` so many seconds; None: RELEASE_WITHIN,
        or as long as it may take until another one serves it. Then, and after any other exception, nothing is held as
        far as this object knows, and `may_hold` is true.
        """
        if within is None:
            within = self.connector.patient(RELEASE_WITHIN)
        held = bool(self.grants)
        self.give_up()
        self.connector.latest = inf  # an exception may have kept `acquire` from it
        try:
            if held:
                return self._releaser.release(within, check=True)
            self._releaser.release_all(within)
            return False
        finally:
            self.connector.leave()

    def abandon(self, within: float = RELEASE_WITHIN) -> None:
        """Release what was asked for and may have been granted meanwhile; no error if the server is gone.

        It takes `within` seconds at most.
        """
        connection, asked = self.connector.connection, bool(self._asked)
        self.give_up()
        if connection is not None and asked:
            with contextlib.suppress(OSError):  # at once behind the LOCK, which a server that hangs may read much later
                connection.send(b"UNLOCK\n", -inf)
        self.connector.close()
        if asked and self._releaser.owes:
            within = min(within, self.connector.latest - time.monotonic())
            with contextlib.suppress(IpclockerError, DeadlineExceeded):
                self._releaser.release(within)
            self.connector.close()
        self.connector.leave()

    def give_up(self) -> None:
        """Note that all that was asked for is to be released; from here on nothing is held."""
        self.grants = ()
        if self._asked:
            self._releaser.owe(self._session.owner(self.connector.connection), list(self._asked.items()))
            self._asked.clear()
