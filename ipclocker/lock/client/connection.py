"""A client's connection to one lock server: requests out, replies in, each with a deadline.

The owner of a connection passes in the way to wait for the socket, so that the same code serves a thread that may
simply block and a tool that watches signals and a child process meanwhile.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Callable

from ...net.address import Address
from ...net.line_buffer import LineTooLong, split_lines
from ...net.ready import READ as READ  # these are for those who use a connection, too
from ...net.ready import WRITE as WRITE
from ...net.ready import Wait as Wait
from ...net.ready import poll_until as poll_until
from ...net.ready import wait_ready as wait_ready
from ...net.ready import wait_until as wait_until
from ..wire.replies import MAX_ANSWER_LINE, Answer, AnswerReader, Broke, Reply, Space
from ..wire.requests import Value as Value  # for those who use a connection, too
from ..wire.requests import news_and_command
from .steps import Steps, run

# Seconds for an answer that depends on no other client. A server takes milliseconds, and some seconds if its disk is
# slow; one that is silent for longer is taken for gone.
ANSWER_WITHIN = 10.0
CONNECT_WITHIN = 10.0  # seconds for one address; a host that is switched off says nothing at all
# A server whose host went away is noticed after 15 + 3 * 5 = 30 s, by a probe or by what was sent and not received
# (TCP_USER_TIMEOUT, in milliseconds). One in whose place another one serves, or that a place in the queue depends on,
# is missed after 2 + 3 * 1 = 5 s. It is the kernel that answers, so a server that is slow or stands still is not.
_TCP_OPTIONS = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))
_TCP_OPTIONS_SOON = (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 5_000))
# Errors with which a server ends a connection, as any that is gone: it is tried again, or another one.
_ENDS = {
    b"unwritable": (errno.ENOSPC, "it can't write its state (is its disk full?)"),
    b"not_leader": (errno.ECONNRESET, "another server leads by now"),
    b"server_ended": (errno.ECONNRESET, "the server has ended"),
}


class ConnectionLost(ConnectionError):
    """The connection to the server is gone, or what the server sends is not the lock protocol."""


class DeadlineExceeded(Exception):
    """The deadline passed before the reply came."""


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
        self.space: Space | None = None  # that the server serves; it tells that before it answers to `space 1`
        self.in_use = False  # set by each request, until its owner says that all was answered

    @classmethod
    def connect(cls, address: Address, deadline: float, wait: Wait = wait_ready) -> ServerConnection:
        """Connect before the deadline, and within CONNECT_WITHIN. Raises OSError; TimeoutError when that is over."""
        return run(cls.connecting(address, deadline, wait), wait)

    @classmethod
    def connecting(cls, address: Address, deadline: float, wait: Wait = wait_ready) -> Steps[ServerConnection]:
        """Connect as `connect` does, in steps."""
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if address.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                _set_options(sock, _TCP_OPTIONS)
            problem = sock.connect_ex(address.sockaddr)
            if problem in (errno.EINPROGRESS, errno.EAGAIN, errno.EINTR):
                if not (yield sock, WRITE, min(deadline, time.monotonic() + CONNECT_WITHIN)):
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
        self.in_use = True
        self.send(first + news_and_command(command, variables, self._sent), deadline)

    def sending_request(self, command: bytes, deadline: float, /, **variables: Value) -> Steps[None]:
        """Send a request as `send_request` does, in steps."""
        yield from self._sending(news_and_command(command, variables, self._sent), deadline)

    def asking_space(self, deadline: float) -> Steps[None]:
        """Ask which lock space the server serves, and wait for the answer: `space`, None if it does not tell.

        It grants nothing, and leaves no answer behind. Raises ConnectionLost, also at the deadline.
        """
        before, self.in_use = self.in_use, True
        yield from self.sending_request(b"VERSION", deadline, space=1)
        while not any(isinstance(reply, Answer) for reply in self.pending()):
            if not (yield self.sock, READ, deadline):
                raise ConnectionLost(errno.ETIMEDOUT, "it does not answer")
            self.receive()
        self.in_use = before

    def verifying_space(self, known: Space, deadline: float) -> Steps[None]:
        """Have the server tell that it serves the known lock space; else it is closed. Raises as `asking_space`."""
        try:
            yield from self.asking_space(deadline)
            why = why_another(known, self.space)
            if why:
                raise ConnectionLost(errno.EPROTO, why)
        except BaseException:
            self.close()
            raise

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
        unsent = self._send_now(data)
        if unsent:
            run(self._sending(unsent, deadline), self._wait_open)

    def _sending(self, data: bytes, deadline: float) -> Steps[None]:
        while data := self._send_now(data):
            if not (yield self.sock, WRITE, deadline):
                raise ConnectionLost(errno.ETIMEDOUT, "it does not read")

    def _send_now(self, data: bytes) -> bytes:
        """Send what can be sent without waiting; what is left of it."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            return data
        except OSError as error:
            raise ConnectionLost(error.errno, error.strerror) from None
        if ServerConnection.trace is not None:
            ServerConnection.trace(">", data[:sent])
        return data[sent:]

    def reply(self, deadline: float = inf) -> Reply:
        """Wait for the next reply. Raises DeadlineExceeded at the deadline."""
        while not self._replies:
            if not self._wait_open(self.sock, READ, deadline):
                raise DeadlineExceeded
            self.receive()
        return self._next()

    def _wait_open(self, sock: socket.socket | None, events: int, deadline: float) -> bool:
        try:
            return self._wait(sock, events, deadline)
        except ValueError:
            # The garbage collector may close it at any time: a Locker that it collects is released by a thread.
            if self.sock.fileno() >= 0:
                raise
            raise ConnectionLost(errno.EBADF, os.strerror(errno.EBADF)) from None

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
            lines, self._rest = split_lines(self._rest, data, MAX_ANSWER_LINE)
        except LineTooLong:
            raise ConnectionLost(errno.EPROTO, "this is no lock server") from None
        for reply in self._reader.read(lines):
            if isinstance(reply, Space):
                self.space = reply
                if reply.ttl is not None:
                    self.notice_soon()
            else:
                self._replies.append(reply)

    def notice_soon(self) -> None:
        """Notice in seconds, from now on, when the server's host is gone."""
        if self.address.family != socket.AF_UNIX:
            _set_options(self.sock, _TCP_OPTIONS_SOON)

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
        if isinstance(reply, Answer) and reply.error in _ENDS:
            raise ConnectionLost(*_ENDS[reply.error])
        return reply


def _set_options(sock: socket.socket, options: Iterable[tuple[str, int]]) -> None:
    for name, value in options:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def why_another(known: Space, told: Space | None) -> str:
    """Say why what a server has told is another lock space than the known one; empty if it is the same."""
    if told is None:
        return "it does not tell which lock space it serves"
    return "" if told.identity == known.identity else "it serves another lock space"


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


def prompt_answer(
    connection: ServerConnection, on_broken: Callable[[bytes], None] = lambda holder: None, deadline: float = inf
) -> Answer:
    """Wait for the answer to a request that depends on no other client, as `prompt_reply` does.

    `on_broken` is called with each holder from whom a lock was taken; other replies before the answer are skipped.
    """
    while True:
        reply = prompt_reply(connection, deadline)
        if isinstance(reply, Answer):
            return reply
        if isinstance(reply, Broke):
            on_broken(reply.holder)
