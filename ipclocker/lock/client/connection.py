"""A client's connection to one lock server: requests out, replies in, each with a deadline.

The owner of a connection passes in the way to wait for the socket, so that the same code serves a thread that may
simply block and a tool that watches signals and a child process meanwhile.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Callable, Optional, Union

from ...net.address import Address
from ...net.line_buffer import LineTooLong, split_lines
from ..wire.replies import Answer, AnswerReader, Reply
from ..wire.requests import request

READ = select.POLLIN
WRITE = select.POLLOUT
CONNECT_WITHIN = 10.0  # seconds for one address; a host that is switched off says nothing at all
# A server whose host went away is noticed after 15 + 3 * 5 = 30 s, by a probe or by what was sent and not received
# (TCP_USER_TIMEOUT, in milliseconds).
_TCP_OPTIONS = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))
_LONGEST_POLL = 3600.0  # seconds; poll() takes milliseconds as a C int, so a far deadline is waited for in pieces

Value = Union[bytes, int, float, tuple[bytes, ...]]
Wait = Callable[[Optional[socket.socket], int, float], bool]


class ConnectionLost(ConnectionError):
    """The connection to the server is gone, or what the server sends is not the lock protocol."""


class DeadlineExceeded(Exception):
    """The deadline passed before the reply came."""


def wait_ready(sock: socket.socket | None, events: int, deadline: float) -> bool:
    """Wait until the socket is ready (READ or WRITE), and return True; False if the deadline passes before.

    Without a socket it sleeps until the deadline.
    """
    poller = select.poll()
    if sock is not None:
        poller.register(sock, events)
    return bool(poll_until(poller, deadline))


def wait_until(latest: float) -> Wait:
    """Make a `wait_ready` that gives up at `latest` (monotonic seconds), whatever the deadline."""
    return lambda sock, events, deadline: wait_ready(sock, events, min(deadline, latest))


def poll_until(poller: select.poll, deadline: float) -> list[tuple[int, int]]:
    """Poll until something is ready, and return that as `poll` does; the empty list if the deadline passes before."""
    while True:
        left = deadline - time.monotonic()
        ready = poller.poll(None if deadline == inf else max(0.0, min(left, _LONGEST_POLL)) * 1000)
        if ready or left <= 0:
            return ready


class ServerConnection:
    """An open connection to a lock server.

    Every method raises ConnectionLost once the server is gone, or can't write down what it grants. `trace`, if it is
    set, is called for all connections of the process with each piece sent (">") and received ("<").
    """

    trace: Callable[[str, bytes], None] | None = None

    def __init__(self, sock: socket.socket, address: Address, wait: Wait = wait_ready) -> None:
        self.sock = sock
        self.address = address
        self._wait = wait
        self._sent: dict[str, Value] = {}  # the variables that the server has for this connection
        self._rest = b""
        self._reader = AnswerReader()
        self._replies: deque[Reply] = deque()

    @classmethod
    def connect(cls, address: Address, deadline: float, wait: Wait = wait_ready) -> ServerConnection:
        """Connect before the deadline, and within CONNECT_WITHIN. Raises OSError; TimeoutError when that is over."""
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if address.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in _TCP_OPTIONS:
                    if hasattr(socket, name):
                        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            problem = sock.connect_ex(address.sockaddr)
            if problem in (errno.EINPROGRESS, errno.EAGAIN, errno.EINTR):
                if not wait(sock, WRITE, min(deadline, time.monotonic() + CONNECT_WITHIN)):
                    raise TimeoutError(errno.ETIMEDOUT, "no answer")
                problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                raise OSError(problem, os.strerror(problem))
        except BaseException:
            sock.close()
            raise
        return cls(sock, address, wait)

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def send_request(self, command: bytes, first: bytes = b"", deadline: float = inf, /, **variables: Value) -> None:
        """Send a request, with those of the variables that the server does not have yet for this connection.

        `first` is sent in front of it. As for `send`, the deadline matters only if the server does not read.
        """
        news = {name: value for name, value in variables.items() if self._sent.get(name) != value}
        self._sent.update(news)
        self.send(first + request(command, **news), deadline)

    def has_sent(self, variable: str) -> bool:
        """Return True if the server has a value of that variable for this connection."""
        return variable in self._sent

    def set_by_server(self, variable: str, value: Value) -> None:
        """Note that the server has changed a variable by itself."""
        self._sent[variable] = value

    def send(self, data: bytes, deadline: float = inf) -> None:
        """Send all of it; requests are short, so this waits only for a server that has stopped reading.

        Raises ConnectionLost, also at the deadline.
        """
        if ServerConnection.trace is not None:
            ServerConnection.trace(">", data)
        while True:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise ConnectionLost(error.errno, error.strerror) from None
            if not data:
                return
            if not self._wait(self.sock, WRITE, deadline):
                raise ConnectionLost(errno.ETIMEDOUT, "it does not read")

    def reply(self, deadline: float = inf) -> Reply:
        """Wait for the next reply. Raises DeadlineExceeded at the deadline."""
        while not self._replies:
            if not self._wait(self.sock, READ, deadline):
                raise DeadlineExceeded
            self.receive()
        return self._next()

    def answer(self, deadline: float = inf) -> Answer:
        """Wait for the next answer; replies before it are skipped. Raises DeadlineExceeded at the deadline."""
        while True:
            reply = self.reply(deadline)
            if isinstance(reply, Answer):
                return reply

    def receive(self) -> None:
        """Read what has arrived, without waiting."""
        try:
            data = self.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionLost(error.errno, error.strerror) from None
        if not data:
            raise ConnectionLost(errno.ECONNRESET, "the server closed the connection")
        self.read(data)

    def read(self, data: bytes) -> None:
        """Turn bytes that the server has sent into replies. Raises ConnectionLost if this is no lock server."""
        if ServerConnection.trace is not None:
            ServerConnection.trace("<", data)
        try:
            lines, self._rest = split_lines(self._rest, data)
        except LineTooLong:
            raise ConnectionLost(errno.EPROTO, "this is no lock server") from None
        self._replies.extend(self._reader.read(lines))

    @property
    def has_unread(self) -> bool:
        """True if a reply has arrived that nobody has taken yet."""
        return bool(self._replies)

    def pending(self) -> Iterable[Reply]:
        """Take the replies that have arrived, without waiting."""
        while self._replies:
            yield self._next()

    def _next(self) -> Reply:
        reply = self._replies.popleft()
        if isinstance(reply, Answer) and reply.error == b"unwritable":
            # The server closes the connection after that; as with any server that is gone, it is tried again.
            raise ConnectionLost(errno.ENOSPC, "it can't write its state (is its disk full?)")
        return reply
