"""The way to a lock server: which of those listed it is, one connection to it, and another when that breaks.

A server is looked for until one is there. From the moment that it was asked for a lock its `address` is kept, since
each server is a lock space of its own; after each connection that broke there is a longer pause.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from math import inf
from typing import Callable

from ...errors import ServerUnavailable
from ...net.address import Address
from ..wire.replies import Reply
from .connection import ConnectionLost, DeadlineExceeded, ServerConnection, Wait, wait_ready
from .settings import LockSettings

ANSWER_WITHIN = 10.0  # seconds for an answer that depends on nobody else; a server silent for longer is no server
FIRST_PAUSE = 0.1  # seconds before the first reconnection; each further one waits twice as long

Retry = Callable[[str, float], None]


class ServerConnector:
    """At most one connection at a time, `link`. `retry` is called before a pause in which no server is there."""

    def __init__(
        self, settings: LockSettings, wait: Wait = wait_ready, retry: Retry = lambda reason, pause: None
    ) -> None:
        self.settings = settings
        self.wait = wait
        self.connection: ServerConnection | None = None
        self.address: Address | None = None  # the server to stay with
        self.server = ""  # the server that was last tried
        self.problem: OSError = ConnectionLost(errno.ECONNRESET, "the connection was lost")
        self.look_up: Callable[[str], list[Address]] | None = None  # in place of settings.addresses
        self.longest_pause = inf  # seconds; the settings' delay, too, is the longest
        self.reasons: list[str] = []  # why each server that was tried is no good
        self._retry = retry
        self._answered = False  # whether the server has answered since it was found
        self._pause = 0.0  # before the next connection to it
        self._not_before = -inf  # when that is over
        self._lost_at = inf  # when the connection to it was lost

    def drop(self) -> None:
        """Hang up."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def on_reply(self) -> None:
        """The server has answered."""
        self._answered, self._pause, self._lost_at = True, 0.0, inf

    def on_lost(self, problem: OSError) -> None:
        """The connection broke, or could not be made; the next one to this server is made after a pause."""
        now = time.monotonic()
        if self.connection is not None:
            self.reasons.append(f"{self.connection.address}: {problem.strerror}")
        self.drop()
        self.problem = problem
        self._lost_at = min(self._lost_at, now)
        if not self._answered and problem.errno == errno.ETIMEDOUT:
            self._lost_at = -inf  # it was given its time
        longest = max(FIRST_PAUSE, min(self.settings.connect_delay, self.longest_pause))
        self._pause = min(self._pause * 2 or FIRST_PAUSE, longest)
        self._not_before = now + self._pause

    # The server to stay with

    def connect(self, deadline: float) -> ServerConnection:
        """Connect to that server. Raises OSError."""
        assert self.address is not None
        self.connection = ServerConnection.connect(self.address, deadline, self.wait)
        return self.connection

    def reconnect(self, deadline: float) -> bool:
        """Connect to that server; False if there is none, or if it has been gone for so long that it is given up.

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

    def connect_after_pause(self, until: float, within: float) -> bool:
        """Connect to that server if that can be done until then, and in so many seconds."""
        if self._not_before > time.monotonic():
            self.wait(None, 0, min(until, self._not_before))
        if until <= max(self._not_before, time.monotonic()):
            return False
        try:
            self.connect(min(until, time.monotonic() + within))
        except OSError as problem:
            self.on_lost(problem)
            return False
        return True

    @property
    def _patience(self) -> float:
        """Seconds for which it is gone back to a server."""
        if not self._answered:
            return FIRST_PAUSE  # long enough for one more try, since the request may have been granted
        return self.settings.connect_delay * self.settings.connect_tries

    # Any server

    def each_server(self, deadline: float) -> Iterator[ServerConnection]:
        """A connection to each server in turn, as often as the settings say; who takes one says why it is no good.

        Raises ServerUnavailable when the last one was no good, or the deadline would come before the next.
        """
        settings = self.settings
        for tries_left in reversed(range(settings.connect_tries)):
            self.reasons = []
            for connection in self._each_address(deadline):
                self._answered, self._pause, self._lost_at = False, 0.0, inf
                yield connection
            reason = f"no lock server answers ({'; '.join(self.reasons)}): start lockerd there, or name its host"
            from random import uniform  # only here, for an import that most runs do without

            pause = settings.connect_delay * uniform(1, 2)
            if not tries_left or time.monotonic() + pause >= deadline:
                raise ServerUnavailable(reason)
            self._retry(reason, pause)
            self._sleep_until(time.monotonic() + pause, deadline)

    def _each_address(self, deadline: float) -> Iterator[ServerConnection]:
        for server in self.settings.servers():
            self.server = server
            try:
                addresses = (self.look_up or self.settings.addresses)(server)
            except ServerUnavailable as problem:
                self.reasons.append(str(problem))
                continue
            for address in addresses:
                self.server = str(address)
                try:
                    connection = ServerConnection.connect(address, deadline, self.wait)
                except OSError as problem:
                    self.reasons.append(f"{address}: {problem.strerror or problem}")
                else:
                    yield connection

    def _sleep_until(self, until: float, deadline: float) -> None:
        if until > time.monotonic():
            self.wait(None, 0, min(until, deadline))
        if until > deadline:
            raise self.unavailable()

    def unavailable(self, problem: BaseException | None = None) -> ServerUnavailable:
        """What is raised when that server does not answer, because of this problem or of the last one."""
        problem = problem or self.problem
        why = (getattr(problem, "strerror", None) or str(problem)) or f"no answer in {ANSWER_WITHIN:.0f} s"
        return ServerUnavailable(f"the lock server {self.server} does not answer: {why}")


def prompt_reply(connection: ServerConnection, deadline: float = inf) -> Reply:
    """A reply that depends on nobody else: a server that does not give it is none.

    Raises LinkLost after ANSWER_WITHIN seconds, or at the deadline, but not in less than one second.
    """
    now = time.monotonic()
    try:
        return connection.reply(min(now + ANSWER_WITHIN, max(now + 1, deadline)))
    except DeadlineExceeded:
        raise ConnectionLost(errno.ETIMEDOUT, "it does not answer") from None
