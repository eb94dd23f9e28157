"""The client's side of a lock, from the request to the release; whatever breaks in between, it is granted once.

An acquisition has a user name and a session of its own, so that no two share a lock by accident. Whenever the
connection breaks it asks again under the same session: a server that had granted the lock grants the same once
more, and one that had not puts it into the queue. From the moment that a server was reached until the lock is
released the acquisition stays with that server, since each server is a lock space of its own. What was asked for and
is not wanted any more (a time-out, a signal, an exception) is released over a connection of its own, since the
grant may be on its way at that very moment.

A lock that was waited for is not taken to be held before the server has said, after the client's confirmation,
that the grant still stands: the process may have been stopped for longer than the server waits for a sign of life.

Several locks that are wanted together are asked for one after the other in the order of their names, which is the
same for everybody: so no two that hold a part can wait for each other. If a connection breaks or a grant is lost in
between, all that was granted is released and the first name is asked for again, since the order must hold then, too.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from math import inf
from typing import Protocol

from ...errors import IpclockerError, LockLost, ServerRefused, ServerUnavailable
from ...net.address import own_host_name
from ...process.identity import ProcessIdentity, exists, identify, in_container
from ..model import HeldGrant
from ..wire.replies import Answer, LookFor, Lost, Recall, Reply, Waiting
from ..wire.requests import encode_command
from .connection import ConnectionLost, DeadlineExceeded, ServerConnection, Value, Wait, wait_ready
from .connector import ANSWER_WITHIN, FIRST_PAUSE, ServerConnector, prompt_answer, prompt_reply
from .settings import LockSettings, session_name

# Seconds to reach the server again and release a lock. A caller waits for it at its end, so it is shorter than the
# wait for an answer; a server that is away for longer frees the lock by its hold time or its holder's process.
RELEASE_WITHIN = 5.0


class _AskAgain(Exception):
    """The grant does not stand any more, or the lock may come free at once."""


class AcquisitionListener(Protocol):
    """The one who wants to know how an acquisition goes on."""

    def waiting(self, name: str, holder: str) -> None:
        """Hear that the lock is busy and that the request is in the queue."""

    def obtained(self) -> None:
        """Hear that the lock was granted after a wait."""

    def retry(self, reason: str, pause: float) -> None:
        """Hear that no server answers, and that they are tried again in `pause` seconds."""


class LockAcquisition:
    """One lock, or several together, asked for under one user name (default: HOST_PID_USER) and a session of its own.

    `grants` is what it holds: one lock, or all if all are wanted together. If `subscribes` is set, the server is asked
    to say over the connection when a grant is lost or recalled.
    """

    def __init__(
        self, settings: LockSettings, listener: AcquisitionListener, wait: Wait = wait_ready, suffix: str = ""
    ) -> None:
        self.connector = ServerConnector(settings, wait, listener.retry)
        self.grants: tuple[HeldGrant, ...] = ()
        self.busy = b""  # the lock that was busy when it was last asked for
        self.holder = ""  # who held it
        self.subscribes = False
        self._listener = listener
        self._session = session_name()
        self._suffix = suffix
        self._user: bytes | None = None
        self._reported_dead: set[LookFor] = set()
        self._has_part = False  # of several that are wanted together some may be held

    @property
    def settings(self) -> LockSettings:
        """The parameters of the request: which locks, from which servers, for how long."""
        return self.connector.settings

    @settings.setter
    def settings(self, settings: LockSettings) -> None:
        self.connector.settings = settings

    @property
    def held(self) -> HeldGrant | None:
        """The grant that it holds; the first if there are several, None if there is none."""
        return self.grants[0] if self.grants else None

    # Asking

    def acquire(self, wait: bool, deadline: float) -> bool:
        """Get the lock, or renew it; False if it is busy and `wait` is false, or the deadline passes in the queue.

        Raises ServerUnavailable if no server answers before the deadline or within the settings' tries, ServerRefused,
        LockLost if it holds a lease that was recalled. After False and after an error nothing is held.
        """
        connector = self.connector
        servers: Iterator[ServerConnection] | None = None
        try:
            while True:
                if connector.connection is None and not connector.reconnect(deadline):
                    if self.grants:
                        raise connector.unavailable()
                    if connector.address is not None:
                        self.abandon(within=1.0)  # left for another one, it may have granted what it was asked for
                    servers = servers or connector.each_server(deadline)
                    connector.connection = next(servers)
                try:
                    return self._ask_for_all(wait, deadline)
                except ConnectionLost as problem:
                    connector.on_lost(problem)
                except _AskAgain:
                    continue
        except DeadlineExceeded:
            self.abandon()
            return False
        except BaseException:
            self.abandon()
            raise

    def _ask_for_all(self, wait: bool, deadline: float) -> bool:
        """Ask for each lock that is wanted, once; False if one of them is busy."""
        groups = self.settings.groups
        got: list[HeldGrant] = []
        waited = False
        if len(groups) > 1 and self._has_part and self._keeps_part():
            return True
        for names in groups:
            held, has_waited = self._ask(names, got, wait, deadline)
            waited |= has_waited
            if held is None:
                if got:
                    self.abandon()
                self.grants = ()
                return False
            got.append(held)
            self._has_part = len(groups) > 1
        self.grants = tuple(self._renew(got) if len(got) > 1 and waited else got)
        if waited:
            self._listener.obtained()
        return True

    def _keeps_part(self) -> bool:
        """Renew all locks that are held together; if one does not stand, release them all and return False."""
        if self.grants:
            with contextlib.suppress(_AskAgain):
                self.grants = tuple(self._renew(self.grants))
                return True
        self.grants = ()
        connection = self._connection(inf)
        for names in self.settings.groups:
            connection.send_request(b"UNLOCK", **self._who(), locks=names)
            self._refuse_error(prompt_answer(connection))
        self._has_part = False
        return False

    def _ask(
        self, names: tuple[bytes, ...], got: Sequence[HeldGrant], wait: bool, deadline: float
    ) -> tuple[HeldGrant | None, bool]:
        """Ask for the first of the names that is free, while the `got` are held; the grant, and whether it took a wait.

        Raises _AskAgain if the answer came too late: the grant does not stand any more.
        """
        asked = time.monotonic()
        connection = self._connection(deadline)
        self.connector.address = connection.address  # from here on there may be a grant
        connection.send_request(b"LOCK", **self._variables(connection, names, wait))
        answer, waited, ask_again = self._await_answer(connection, names, got, wait, deadline)
        if not answer.locked or answer.name is None:
            self.busy, self.holder = names[0], os.fsdecode(answer.owner)
            # A classic server would still grant the lock to this connection some time, so it has to go.
            self.connector.close()
            if ask_again or waited:
                raise _AskAgain
            if not got:
                self.connector.address = None
            return None, False
        connection.set_by_server("locks", (answer.name,))
        if answer.token is None:
            if self.settings.lease:
                raise ServerUnavailable(
                    f"the lock server {self.connector.server} knows no leases: use one of this release"
                )
            self.connector.close()  # for a classic server every open connection is work, and of no use
            return self._held_since(time.monotonic() if waited else asked, answer.name, None), waited
        held = self._held_since(asked, answer.name, answer.token)
        if waited:
            (held,) = self._renew([held], held.line(b"GOT"))
        return held, waited

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
                reply = prompt_reply(connection, deadline if wait else inf)
            self.connector.on_reply()
            if isinstance(reply, Waiting):
                waited = True
                self.busy, self.holder = names[0], os.fsdecode(reply.holder)
                self._listener.waiting(os.fsdecode(names[0]), self.holder)
            elif isinstance(reply, LookFor):
                ask_again = self._look_for(reply, connection) or ask_again
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
            connection = self._connection(inf)
            lines = b"".join(grant.line(word) for grant in named)
            tell: dict[str, Value] = {"tell": 1} if self.subscribes else {}
            connection.send_request(lines[:-1], first, **tell)
            answers = [prompt_answer(connection) for _ in named]
            if not all(answer.renewed or answer.current for answer in answers):
                raise _AskAgain
        return [self._held_since(asked, grant.name, grant.token) for grant in grants]

    def _held_since(self, asked: float, name: bytes, token: int | None) -> HeldGrant:
        settings = self.settings
        return HeldGrant(name, token, asked, asked + settings.hold if settings.hold and not settings.lease else inf)

    def _next_in_queue(self, connection: ServerConnection, got: Sequence[HeldGrant], deadline: float) -> Reply:
        """Read the next reply while the request is in the queue; meanwhile renew what is held already."""
        if not (got and self.settings.hold) or got[0].token is None:
            return connection.reply(deadline)
        from .keepalive import reply_while_holding  # only here, for an import that most runs do without

        return reply_while_holding(connection, self.connector, got, self.settings.hold, deadline)

    def _look_for(self, sought: LookFor, connection: ServerConnection) -> bool:
        """Look for the holder's process if it is of this host; if it is gone, report it dead and return True.

        A server that can't look for itself, as a classic one at times, then frees the lock.
        """
        if sought in self._reported_dead or os.fsdecode(sought.host) != own_host_name() or in_container():
            return False
        if exists(sought.pid) is not False:
            return False
        self._reported_dead.add(sought)
        with contextlib.suppress(OSError):
            # A server reads nothing more from a connection whose LOCK waits, so this takes one of its own.
            other = ServerConnection.connect(connection.address, time.monotonic() + ANSWER_WITHIN, self.connector.wait)
            other.send(b"DEAD_PID %b %d\n\nEOF\n\n" % (sought.host, sought.pid))
            other.close()
        return True

    def _variables(self, connection: ServerConnection, names: tuple[bytes, ...], wait: bool) -> dict[str, Value]:
        settings = self.settings
        variables: dict[str, Value] = {
            **self._who(),
            "locks": names,
            "block": int(wait),
            "timeout": settings.hold,
            "token": 1,
        }
        command = encode_command(os.fsencode(settings.command or ""))
        for name, value in (("lease", int(settings.lease > 0)), ("tell", int(self.subscribes)), ("command", command)):
            if value or connection.has_sent(name):  # most do without them
                variables[name] = value
        if settings.autounlock:
            pid = os.getpid() if settings.pid is None else settings.pid
            variables.update(autounlock=1, pid=pid, hostname=os.fsencode(settings.hostname or own_host_name()))
            process = identify(pid) if settings.hostname is None else ProcessIdentity(pid)
            if process.start is not None and process.pidns is not None:
                variables.update(start=process.start, boot=process.boot.encode(), pidns=process.pidns)
        else:
            variables["autounlock"] = 0
        return variables

    def _who(self) -> dict[str, Value]:
        """The user and the session of all requests; both stay the same as long as this object lives."""
        if self._user is None:
            self._user = self.settings.user_name(self._suffix)
        return {"user": self._user, "session": self._session}

    def _refuse_error(self, answer: Answer) -> None:
        if answer.error is not None:
            self.connector.close()
            if answer.error == b"recalled":
                names = ", ".join(map(os.fsdecode, self.settings.names))
                raise LockLost(f"the lock {names} was asked for back (lockstat break): it is given back")
            raise ServerRefused(os.fsdecode(answer.error), self.connector.server)

    # Releasing

    def release(self, within: float = RELEASE_WITHIN) -> bool:
        """Release what is held; False if the server says that a grant was lost before.

        Raises ServerUnavailable if the server does not answer `within` so many seconds; then, too, nothing is held
        any more as far as this object knows.
        """
        grants, self.grants = self.grants, ()
        assert grants
        stood = self._unlock(grants, [(held.name,) for held in grants], within)
        self.connector.address = None
        self._has_part = False
        return stood

    def abandon(self, within: float = RELEASE_WITHIN) -> None:
        """Release what was asked for and may have been granted meanwhile; no error if the server is gone.

        It takes `within` seconds at most.
        """
        self.connector.close()
        self.grants = ()
        self._has_part = False
        if self.connector.address is not None:
            with contextlib.suppress(IpclockerError):
                self._unlock((), self.settings.groups, within)
            self.connector.close()
            self.connector.address = None

    def _unlock(self, grants: Sequence[HeldGrant], groups: Sequence[tuple[bytes, ...]], within: float) -> bool:
        """Send UNLOCK, over a new connection if need be, until the server has answered or the time is over.

        False if it says that one of the grants did not stand any more.
        """
        connector = self.connector
        deadline = time.monotonic() + within
        pause = FIRST_PAUSE
        checked = False
        while True:
            try:
                connection = connector.connection or connector.connect(deadline)
                connection.receive()  # if the server is gone since, that is said here
                # CHECK and UNLOCK go in one packet. After an answer that was lost, CHECK would say nothing: the UNLOCK
                # behind it may have been done.
                named = [held for held in grants if held.token is not None and not checked]
                check = b"".join(held.line(b"CHECK") for held in named)
                checked = True
                connection.send_request(b"UNLOCK", check, deadline, **self._who(), locks=groups[0])
                stood = [connection.answer(deadline).current is not False for _ in named]
                self._refuse_error(connection.answer(deadline))
                for names in groups[1:]:  # one by one, as every server knows it
                    connection.send_request(b"UNLOCK", b"", deadline, locks=names)
                    self._refuse_error(connection.answer(deadline))
                return all(stood)
            except (OSError, DeadlineExceeded) as problem:
                connector.close()
                if time.monotonic() + pause >= deadline:
                    raise connector.unavailable(problem) from None
            connector.wait(None, 0, time.monotonic() + pause)
            pause *= 2

    def _connection(self, deadline: float) -> ServerConnection:
        """Return the connection; a new one to the same server if it was closed. Raises ConnectionLost."""
        if self.connector.connection is not None:
            return self.connector.connection
        try:
            return self.connector.connect(deadline)
        except OSError as problem:
            raise ConnectionLost(problem.errno, problem.strerror) from None
