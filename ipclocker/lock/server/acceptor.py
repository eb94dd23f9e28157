"""Accepting connections: many in a turn of the loop, and none while no descriptor is left."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Iterable, Sized
from typing import Callable

from ...net.loop import READ, Loop
from ...net.ready import READ as READ_READY
from ...net.ready import new_poller, poll_until
from ...net.tcp_listener import accept, accept_silent
from ...net.transport import DONTWAIT
from ...net.unix_socket import BACKLOG

_AT_ONCE = 64  # new connections served in one turn, so that those that stay have theirs
_AGAIN = 1.0  # seconds until the next try when no descriptor was left
_COMPLAIN_EVERY = 60.0  # seconds from one log line about the same trouble to the next
_LINGER = 0.02  # seconds; a request that is on its way comes within a round trip
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)


class Acceptor:
    """Calls `serve` with the socket and the host (see `accept`) of each client that comes, from `start` to `close`.

    `clients` are the connections that have the descriptors when none is left.
    """

    def __init__(
        self,
        loop: Loop,
        listeners: Iterable[socket.socket],
        serve: Callable[[socket.SocketType, str], None],
        clients: Sized,
    ) -> None:
        self._loop = loop
        self._listeners = tuple(listeners)
        self._serve = serve
        self._clients = clients
        self._accepting = False
        self._is_stopped = False
        self._next_complaint = 0.0

    def start(self) -> None:
        """Accept from now on; also after a pause, since a descriptor is free again."""
        if not self._accepting and not self._is_stopped:
            self._accepting = True
            for listener in self._listeners:
                self._watch(listener)

    def serve_what_has_come(self) -> None:
        """Serve those that wait to be accepted now, the last ones before the listeners end."""
        for listener in self._listeners:
            accept_silent(listener)
            for _ in range(BACKLOG // _AT_ONCE):
                self._accept(listener, int(listener.family))

    def stop(self) -> None:
        """Accept nobody any more by itself, also when a descriptor becomes free."""
        if self._accepting:
            for listener in self._listeners:
                self._loop.unwatch(listener)
        self._accepting = False
        self._is_stopped = True

    def turn_away(self, farewell: bytes) -> None:
        """Tell this to those who wait to be accepted now, and hang up; else the end of a listener cuts them off.

        Who has just connected takes what comes before the end as the answer to the request that it sends. Some have
        connected and are not to be seen before their request comes, so a moment is waited for that.
        """
        poller = new_poller()
        for listener in self._listeners:
            poller.register(listener, READ_READY)
        until = time.monotonic() + _LINGER
        while self._listeners and poll_until(poller, until):
            for listener in self._listeners:
                self._turn_away_from(listener, farewell)
            if time.monotonic() >= until:  # without a descriptor nobody can be turned away
                return

    @staticmethod
    def _turn_away_from(listener: socket.socket, farewell: bytes) -> None:
        for _ in range(BACKLOG):
            try:
                sock, _ = accept(listener, int(listener.family))
            except OSError:
                break
            with contextlib.suppress(OSError):
                sock.send(farewell, DONTWAIT)
            sock.close()

    def close(self) -> None:
        """Accept nobody any more. The listeners are not closed by this."""
        self.stop()
        self._listeners = ()

    def _watch(self, listener: socket.socket) -> None:
        family = int(listener.family)
        self._loop.watch(listener, READ, lambda events: self._accept(listener, family))

    def _accept(self, listener: socket.socket, family: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, host = accept(listener, family)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in _NO_DESCRIPTOR:
                    self._pause(problem)
                    return
                continue  # that connection is gone again; the next one may be well
            self._serve(sock, host)

    def _pause(self, problem: OSError) -> None:
        """Leave new connections in the kernel's queue until a descriptor is free again."""
        if not self._accepting:
            return
        if self._loop.now >= self._next_complaint:
            self._next_complaint = self._loop.now + _COMPLAIN_EVERY
            log.warning("%s: new clients wait until one of %d goes", problem.strerror, len(self._clients))
        self._accepting = False
        for listener in self._listeners:
            self._loop.unwatch(listener)
        self._loop.call_at(self._loop.now + _AGAIN, self.start)
