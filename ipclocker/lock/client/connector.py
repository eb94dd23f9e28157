"""Connecting to a lock server: find the first of the listed servers that answers, and connect again when that breaks.

As long as none answers, all are tried again and again, after pauses that begin short and grow up to a few seconds: a
server that restarts costs its clients the time of its restart. What the settings' tries and delay bound is the total.

From the moment that a server was asked for a lock its lock space is stayed with. Its `address` is kept, and no other
server is tried but those of the list that tell the same identity (space_hosts.py). Before each new round of
connections there is a pause, which doubles, too.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from typing import Callable

from ...errors import ServerUnavailable
from ...net.address import Address, Host, needs_look_up
from ..wire.replies import Space
from . import idle
from .connection import ANSWER_WITHIN, ConnectionLost, DeadlineExceeded, ServerConnection, Wait, wait_ready
from .settings import LockSettings
from .space_hosts import LONGEST_PAUSE, SpaceHosts, has_to_tell, longest_pause, patience
from .steps import Attempt, Steps, run

# Seconds before the first reconnection, at the least: a server that restarts is back after a few tenths. Each further
# pause is twice as long, so that a server that is away is not flooded, up to LONGEST_PAUSE.
FIRST_PAUSE = 0.1
SILENT_AFTER = 0.5  # seconds; the next host is asked beside one that has said nothing for so long
_LAST_TRY = 0.4  # seconds before a deadline; a server may have come back during the pause before
_ONE_OF_SEVERAL_WITHIN = 2.0  # seconds for a connection to one of several hosts: one of them may be switched off

Retry = Callable[[str, float], None]


class ServerConnector:
    """One client's way to its lock server: at most one `connection` at a time.

    `wait` is how it waits for sockets and time. When none of the servers has answered, `retry` is called with a reason
    and the seconds for which they are tried again, as often as the settings have tries, less one.
    """

    def __init__(
        self, settings: LockSettings, wait: Wait = wait_ready, retry: Retry = lambda reason, pause: None
    ) -> None:
        self.settings = settings
        self.latest = inf  # when all has to be over, whatever the deadline of a single step
        self._wait = wait
        self.connection: ServerConnection | None = None
        self.address: Address | None = None  # the server to stay with, or another one of its lock space
        self.space: Space | None = None  # that lock space, as far as the server tells
        self.server = ""  # the server that was last tried
        self.problem: OSError = ConnectionLost(errno.ECONNRESET, "the connection was lost")
        self.look_up: Callable[[Host], list[Address]] | None = None  # in place of settings.addresses
        self.check: Callable[[], object] | None = None  # ends a look-up by an exception
        self.longest_pause = LONGEST_PAUSE  # seconds; the settings' delay, too, is the longest
        self.answer_by = inf  # the share of a server that has not answered yet, so that the next ones have theirs
        self.connect_seconds = 0.0  # what the last connection took, so a round trip to the server
        self.reasons: list[str] = []  # why each server that was tried can't be used
        self._retry = retry
        self._found_as: tuple[Host, object] | None = None  # the server among the settings that the address belongs to
        self._answered = False  # whether the server has answered since it was found
        self._pause = 0.0  # before the next connection to it
        self._not_before = -inf  # when that is over
        self._lost_at = inf  # when the connection to it was lost
        self._hosts: SpaceHosts | None = None  # that are asked since then
        self._gone: dict[str, str] = {}  # why each of them can't be used

    def wait(self, sock: socket.socket | None, events: int, deadline: float) -> bool:
        """Wait as `connection.wait_ready` does. Raises DeadlineExceeded if `latest` comes first."""
        if deadline <= self.latest:
            return self._wait(sock, events, deadline)
        if self._wait(sock, events, self.latest):
            return True
        raise DeadlineExceeded

    def wait_by(self, wait: Wait) -> Wait:
        """Wait in this way from now on; return the way until now."""
        before, self._wait = self._wait, wait
        return before

    def close(self) -> None:
        """Close the connection, if there is one, parked or not."""
        self.unpark()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def settle(self) -> None:
        """Note that all that was asked over the connection was answered."""
        if self.connection is not None:
            self.connection.in_use = False

    def close_unsettled(self) -> None:
        """Close a connection that an exception has left in the middle of a request: its answers belong to that."""
        if self.connection is not None and self.connection.in_use:
            self.close()

    def park(self) -> None:
        """Leave the connection open for a minute, for the next use, which begins with `unpark`.

        Not if its server was found since the first one did not answer: that one is to be asked first the next time.
        """
        if self.connection is not None and (self.connection.in_use or self._found_as != self._first_choice):
            self.close()
        if self.connection is not None:
            idle.park(self, self.connection)
            self.connection = None

    def unpark(self) -> None:
        """Take the connection back, if it was parked and is open still, and the settings name the same server first."""
        parked = idle.take(self)
        if parked is not None and self._found_as != self._first_choice:
            parked.close()
        else:
            self.connection = parked or self.connection

    @property
    def _first_choice(self) -> object:
        return self.settings.servers()[0], self.settings.endpoint

    def on_reply(self) -> None:
        """Note that the server has answered: what follows is a new time of patience with it."""
        self._answered, self._pause, self._lost_at = True, 0.0, inf
        self.answer_by = inf
        if self._gone:
            self._gone.clear()
        if self.connection is not None and self.connection.space is not None and self.address is not None:
            self.space = self.connection.space

    def on_lost(self, problem: OSError) -> None:
        """Note that the connection broke or could not be made; the next one is made after a pause.

        Of several hosts of a lock space each is asked once between two pauses.
        """
        now = time.monotonic()
        if self.connection is not None:
            self.reasons.append(f"{self.connection.address}: {problem.strerror}")
            self._gone[str(self.connection.address)] = problem.strerror or str(problem)
        self.close()
        self.problem = problem
        self._lost_at = min(self._lost_at, now)
        if not self._answered and problem.errno == errno.ETIMEDOUT:
            self._lost_at = -inf  # it was given its time
        if self.asks_others:
            return
        longest = max(FIRST_PAUSE, min(self.settings.connect_delay, self.longest_pause, longest_pause(self.space)))
        self._pause = min(self._pause * 2 or FIRST_PAUSE, longest / 2)
        self._not_before = now + jittered(self._pause)

    @property
    def asks_others(self) -> bool:
        """True if another host of the lock space is to be asked at once, since one has failed."""
        return self._hosts is not None and not self._hosts.are_asked

    # The server to stay with

    def beside(self, wait: Wait) -> ServerConnector:
        """Make a connector for one more connection to the same server, which waits by `wait`."""
        other = ServerConnector(self.settings, wait)
        other.address, other.server, other.connect_seconds = self.address, self.server, self.connect_seconds
        other.space, other._found_as = self.space, self._found_as
        return other

    def stay(self, address: Address, space: Space | None) -> None:
        """Stay with this server from now on, and with its lock space, if that is known."""
        if space is not None or address != self.address:
            self.space = space
        self.address = address
        self._hosts = None

    def stays_with(self, address: Address, space: Space | None) -> bool:
        """Tell if it stays with this server, or with another one of that lock space."""
        is_there = space is not None and self.space is not None and space.identity == self.space.identity
        return self.address is not None and (self.address == address or is_there)

    def leave(self) -> None:
        """Stay with no server any more."""
        self.address = self.space = self._hosts = None

    def patient(self, within: float) -> float:
        """Return for how many seconds the lock space is to be looked for: `within`, but not less than it may take."""
        return patience(self.space, within)

    def connect(self, deadline: float) -> ServerConnection:
        """Connect to the server of `address`, or the next one in turn of its lock space. Raises OSError."""
        return run(self._connecting(deadline), self.wait)

    def ask_space(self, deadline: float) -> None:
        """Have the server that is connected tell its lock space, unless it was asked. Raises ConnectionLost."""
        connection = self.connected(deadline)
        if not connection.has_sent("space"):
            run(connection.asking_space(min(deadline, time.monotonic() + ANSWER_WITHIN)), self.wait)

    def _connecting(self, deadline: float) -> Steps[ServerConnection]:
        last = self.address
        assert last is not None
        hosts = self._hosts
        if hosts is None or hosts.are_asked:
            host = self._found_as[0] if self._found_as is not None else None
            hosts = self._hosts = SpaceHosts(self.settings, last, host, others=self.space is not None)
        if hosts.are_several:
            within = max(_ONE_OF_SEVERAL_WITHIN, 4 * self.connect_seconds)
            deadline = min(deadline, time.monotonic() + within)
        address = yield from hosts.next(deadline)
        try:
            connection = yield from self._connecting_to(address, deadline)
            if self.space is not None and has_to_tell(self.space, last, address):
                yield from connection.verifying_space(self.space, deadline)
        except OSError as problem:
            self._gone[str(address)] = problem.strerror or str(problem)
            raise
        self.address, self.server, self._hosts = address, str(address), None
        self.connection = connection
        return connection

    def connected(self, deadline: float = inf) -> ServerConnection:
        """Return the connection; a new one to the same server if it was closed. Raises ConnectionLost."""
        if self.connection is not None:
            return self.connection
        try:
            return self.connect(deadline)
        except OSError as problem:
            raise ConnectionLost(problem.errno, problem.strerror) from None

    def _connecting_to(self, address: Address, deadline: float) -> Steps[ServerConnection]:
        begin = time.monotonic()
        connection = yield from ServerConnection.connecting(address, deadline, self.wait)
        self.connect_seconds = time.monotonic() - begin
        return connection

    def reconnect(self, deadline: float) -> bool:
        """Connect to the server of `address`; False if there is none, or if it has been gone for too long.

        Raises ServerUnavailable at the deadline.
        """
        while self.address is not None and time.monotonic() - self._lost_at <= self._patience:
            self._sleep_until(self._not_before, deadline)
            try:
                self.connect(deadline)
                return True
            except OSError as problem:
                self.on_lost(problem)
        return False

    def pausing(self, until: float) -> Steps[bool]:
        """Wait for the end of the pause before the next connection; False if it is not over at `until`."""
        if self._not_before > time.monotonic():
            yield None, 0, min(until, self._not_before)
        return until > max(self._not_before, time.monotonic())

    def trying_to_connect(self, deadline: float) -> Steps[bool]:
        """Connect to the server of `address` before the deadline; False if that failed, and another pause begins."""
        try:
            yield from self._connecting(deadline)
        except OSError as problem:
            self.on_lost(problem)
            return False
        return True

    @property
    def _patience(self) -> float:
        """Seconds for which a server that went away is tried again."""
        if not self._answered:
            return FIRST_PAUSE  # long enough for one more try, since the request may have been granted
        return self.patient(self.settings.connect_delay * self.settings.connect_tries)

    # Any server

    def each_server(self, deadline: float, once: bool = False) -> Iterator[ServerConnection]:
        """Connect to each server in turn, again and again, until the caller stops asking for the next.

        With `once` each is tried once.

        A caller that can't use a connection adds the reason to `reasons`. Raises ServerUnavailable if all tries have
        failed, the last one just before the deadline.

        What the settings call a try is a time here, which begins with a call of `retry`, and in which the servers are
        tried several times; all these times are tries * delay together. With one try there is none.
        """
        tries_left = 1 if once else self.settings.connect_tries
        try_seconds = self.settings.connect_delay * tries_left / max(1, tries_left - 1)
        try_ends = -inf
        pause = 2 * FIRST_PAUSE
        while True:
            self.reasons = []
            self._gone.clear()
            for connection in self._each_address(deadline):
                self._answered, self._pause, self._lost_at = False, 0.0, inf
                yield connection
            reason = f"no lock server answers ({'; '.join(self.reasons)}): start lockerd there, or name its host"
            now = time.monotonic()
            is_next = now >= try_ends
            if is_next:
                tries_left -= 1
                try_ends = now + try_seconds
            last = deadline - _LAST_TRY
            if not tries_left or now >= last:
                raise ServerUnavailable(reason)
            wake = min(try_ends, now + jittered(pause), last)
            pause = min(pause * 2, LONGEST_PAUSE / 2)
            if is_next:
                self._retry(reason, min(tries_left * try_seconds, deadline - now))
            self._sleep_until(wake, deadline)

    def _each_address(self, deadline: float) -> Iterator[ServerConnection]:
        servers = self.settings.servers()
        for number, server in enumerate(servers):
            self.server = str(server)
            try:
                addresses = self._addresses(server, _share(deadline, len(servers) - number))
            except ServerUnavailable as problem:
                self.reasons.append(str(problem))
                continue
            left = len(addresses) + len(servers) - number - 1
            for address in addresses:
                self.server = str(address)
                try:
                    host, connection = self._connect_first((server, address), servers[number + 1 :], deadline, left)
                except OSError as problem:
                    self.reasons.append(f"{address}: {problem.strerror or problem}")
                else:
                    self.server = str(connection.address)
                    self.answer_by = _share(deadline, left)
                    self._found_as = host, self.settings.endpoint
                    yield connection
                left -= 1

    def _connect_first(
        self, first: tuple[Host, Address], others: Sequence[Host], deadline: float, left: int
    ) -> tuple[Host, ServerConnection]:
        """Connect to the first, or to one of the others if that is silent and they share its lock space.

        Raises OSError.
        """
        host, address = first
        attempt = Attempt(self._connecting_to(address, _share(deadline, left)))
        try:
            if not attempt.go_on(self.wait, time.monotonic() + SILENT_AFTER if others else inf):
                from .silent_host import connect_beside  # only here: most hosts answer

                def each_other() -> Iterator[tuple[Host, Address]]:
                    for other in others:
                        with contextlib.suppress(ServerUnavailable):
                            yield from ((other, there) for there in self._addresses(other, _share(deadline, left)))

                found = connect_beside(attempt, first, each_other, self._connecting_to, self.wait)
                if found is not None:
                    return found
            return host, attempt.result()
        finally:
            attempt.close()

    def _addresses(self, server: Host, deadline: float) -> list[Address]:
        if self.look_up is not None:
            return self.look_up(server)
        bounded = deadline < inf or self.check is not None
        if not bounded or self.settings.endpoint.path is not None or not needs_look_up(server.name):
            return self.settings.addresses(server)
        from ...net.look_up import find_by  # only here, for threads that most runs do without

        key = (server, self.settings.endpoint)
        return find_by(deadline, server.name, key, partial(self.settings.addresses, server), self.check)

    def _sleep_until(self, until: float, deadline: float) -> None:
        if until > time.monotonic():
            self.wait(None, 0, min(until, deadline))
        if until > deadline:
            raise self.unavailable()

    def unavailable(self, problem: BaseException | None = None) -> ServerUnavailable:
        """Make the error that says why the server does not answer: this problem, or else the last one."""
        problem = problem or self.problem
        if len(self._gone) > 1:
            each = "; ".join(f"{where}: {why}" for where, why in self._gone.items())
            return ServerUnavailable(f"no server of the lock space answers ({each})")
        why = getattr(problem, "strerror", None) or str(problem)
        return ServerUnavailable(f"the lock server {self.server} does not answer{why and ': '}{why}")


def _share(deadline: float, tries: int) -> float:
    """Return until when the first of so many tries may last, so that the others have the same time."""
    now = time.monotonic()
    return deadline if deadline == inf else now + max(0.0, deadline - now) / max(1, tries)


def jittered(pause: float) -> float:
    """Return a time from one to two times the pause, by chance, so that a crowd of clients does not come at once."""
    # Not by `random`: most runs do without it, and a program that has no descriptors left could not import it.
    return pause * (1 + int.from_bytes(os.urandom(4), "little") / 2**32)
