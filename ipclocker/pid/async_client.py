"""A client of pid servers for programs with an event loop, which it never holds up.

The caller decides where a question goes, how often and when; this client sends it once.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Callable, NamedTuple, Optional

from ..net.loop import READ, Loop, Timer
from ..process.identity import ProcessIdentity
from .pending import PendingQueries
from .protocol import MAX_DATAGRAM, PidAnswer

_READ_AT_ONCE = 100  # datagrams taken in one turn of the loop, so that a flood does not hold up the rest


class _Asked(NamedTuple):
    answered: Callable[[Optional[PidAnswer]], None]
    timer: Timer


class AsyncPidClient:
    """Asks pid servers from an event loop. The caller has to bound the number of questions."""

    def __init__(self, loop: Loop, port: int) -> None:
        """`port` is the UDP port of the servers."""
        self._loop = loop
        self._port = port
        self._questions: PendingQueries[_Asked] = PendingQueries()
        self._sockets: dict[int, socket.socket] = {}

    def ask(
        self,
        address: str,
        process: ProcessIdentity,
        answered: Callable[[PidAnswer | None], None],
        within: float = 1.0,
        silent: float | None = None,
    ) -> None:
        """Ask the server at an IPv4 or IPv6 address, once, about a process of its host.

        `answered` is called once, in a turn of the loop: with the answer, or with None when there was none
        `within` so many seconds. `silent`: for how long the process's kernel has not been heard of (seconds).
        Raises ValueError if the address is a name, which would have to be looked up.
        """
        try:
            found = socket.getaddrinfo(address, self._port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            raise ValueError(f"'{address}' is no address") from None
        family, _, _, _, sockaddr = found[0]
        timer = self._loop.call_at(self._loop.now + within, lambda: self._give_up(secret, answered))
        secret, datagram = self._questions.ask(process, _Asked(answered, timer), silent=silent)
        with contextlib.suppress(OSError):  # no way there, no room: as if it had been lost on the way
            self._socket(family).sendto(datagram, sockaddr)

    def close(self) -> None:
        """Close the sockets; `answered` is not called any more."""
        for sock in self._sockets.values():
            self._loop.unwatch(sock)
            sock.close()
        self._sockets.clear()
        self._questions = PendingQueries()

    def _give_up(self, secret: bytes, answered: Callable[[PidAnswer | None], None]) -> None:
        if self._questions.give_up(secret):
            answered(None)

    def _socket(self, family: int) -> socket.socket:
        sock = self._sockets.get(family)
        if sock is None:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            self._loop.watch(sock, READ, lambda events: self._receive(sock))
            self._sockets[family] = sock
        return sock

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(_READ_AT_ONCE):
            try:
                datagram = sock.recv(MAX_DATAGRAM + 1)
            except OSError:  # nothing more, or word of a datagram that did not arrive
                return
            found = self._questions.receive(datagram)
            if found is not None:
                answer, asked = found
                asked.timer.cancel()
                asked.answered(answer)
