"""Connecting to a lock server: find the first of the listed servers that answers, and connect again when that breaks.

From the moment that a server was asked for a lock its `address` is kept, and no other server is tried: each server is
a lock space of its own. Before each new connection to it there is a pause, which doubles.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from math import inf
from typing import Callable

from ...errors import ServerUnavailable
from ...net.address import Address
from ..wire.replies import Answer, Broke, Reply
from .connection import ConnectionLost, DeadlineExceeded, ServerConnection, Wait, wait_ready
from .settings import LockSettings

# Seconds for an answer that depends on no other client. A server takes milliseconds, and some seconds if its disk is
# slow; one that is silent for longer is taken for gone.
ANSWER_WITHIN = 10.0
# Seconds before the first reconnection: a server that restarts is back after a few tenths. Each further pause is
# twice as long, so that a server that is away is not flooded.
FIRST_PAUSE = 0.1

Retry = Callable[[str, float], None]


class ServerConnector:
    """One client's way to its lock server: at most one `connection` at a time.

    `wait` is how it waits for sockets and time. `retry` is called with a reason and the seconds of the pause, before
    each pause that follows when none of the servers has answered.
    """

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
        self.reasons: list[str] = []  # why each server that was tried can't be used
        self._retry = retry
        self._answered = False  # whether the server has answered since it was found
        self._pause = 0.0  # before the next connection to it
        self._not_before = -inf  # when that is over
        self._lost_at = inf  # when the connection to it was lost

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def on_reply(self) -> None:
        """Note that the server has answered: what follows is a new time of patience with it."""
        self._answered, self._pause, self._lost_at = True, 0.0, inf

    def on_lost(self, problem: OSError) -> None:
        """Note that the connection broke or could not be made; the next one to this server is made after a pause."""
        now = time.monotonic()
        if self.connection is not None:
            self.reasons.append(f"{self.connection.address}: {problem.strerror}")
        self.close()
        self.problem = problem
        self._lost_at = min(self._lost_at, now)
        if not self._answered and problem.errno == errno.ETIMEDOUT:
            self._lost_at = -inf  # it was given its time
        longest = max(FIRST_PAUSE, min(self.settings.connect_delay, self.longest_pause))
        self._pause = min(self._pause * 2 or FIRST_PAUSE, longest)
        self._not_before = now + self._pause

    # The server to stay with

    def connect(self, deadline: float) -> ServerConnection:
        """Connect to the server of `address`. Raises OSError."""
        assert self.address is not None
        self.connection = ServerConnection.connect(self.address, deadline, self.wait)
        return self.connection

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

    def connect_after_pause(self, until: float, within: float) -> bool:
        """Connect to the server of `address` before `until`, and in `within` seconds; False if that failed.

        It returns at `until` at the latest.
        """
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
        """Seconds for which a server that went away is tried again."""
        if not self._answered:
            return FIRST_PAUSE  # long enough for one more try, since the request may have been granted
        return self.settings.connect_delay * self.settings.connect_tries

    # Any server

    def each_server(self, deadline: float) -> Iterator[ServerConnection]:
        """Connect to each server in turn, as often as the settings say, until the caller stops asking for the next.

        A caller that can't use a connection adds the reason to `reasons`. Raises ServerUnavailable after the last
        one, or if the deadline would come before the next.
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
        """Make the error that says why the server does not answer: this problem, or else the last one."""
        problem = problem or self.problem
        why = (getattr(problem, "strerror", None) or str(problem)) or f"no answer in {ANSWER_WITHIN:.0f} s"
        return ServerUnavailable(f"the lock server {self.server} does not answer: {why}")


def prompt_reply(connection: ServerConnection, deadline: float = inf) -> Reply:
    """Wait for a reply that depends on no other client.

    Raises ConnectionLost after ANSWER_WITHIN seconds, or at the deadline, but not in less than one second.
    """
    now = time.monotonic()
    try:
        # One second even if the deadline is now: `--timeout 0` asks whether the lock is free, and needs the answer.
        return connection.reply(min(now + ANSWER_WITHIN, max(now + 1, deadline)))
    except DeadlineExceeded:
        raise ConnectionLost(errno.ETIMEDOUT, "it does not answer") from None


def prompt_answer(connection: ServerConnection, on_broken: Callable[[bytes], None] = lambda holder: None) -> Answer:
    """Wait for the answer to a request that depends on no other client, as `prompt_reply` does.

    `on_broken` is called with each holder from whom a lock was taken; other replies before the answer are skipped.
    """
    while True:
        reply = prompt_reply(connection)
        if isinstance(reply, Answer):
            return reply
        if isinstance(reply, Broke):
            on_broken(reply.holder)
