"""Notices that a program has shut down the listening socket: nobody listens then, however many have the socket.

That can be waited for without being woken by each connection (epoll(7), Linux; elsewhere it is not noticed).
"""

from __future__ import annotations

import random
import select
from typing import Callable

from ..errors import IpclockerError
from ..net.loop import READ, Loop, Timer
from ..process.restart_policy import RestartPolicy
from .listen_socket import ListenSocket


class SocketWatch:
    """Makes a listening socket again whenever it was shut down, after a pause that grows if that goes on."""

    def __init__(
        self, loop: Loop, listen_socket: ListenSocket, notify: Callable[[str], object], renewed: Callable[[], object]
    ) -> None:
        """Watch from now on. `notify` is called with messages for people, `renewed` when there is a new socket."""
        self._loop = loop
        self._listen_socket = listen_socket
        self._notify = notify
        self._renewed = renewed
        self._policy = RestartPolicy(random.random)
        self._epoll: select.epoll | None = None  # while the socket listens
        self._timer = Timer()
        self._watch()

    def close(self) -> None:
        """Watch no more: it is the end."""
        self._timer.cancel()
        self._unwatch()

    def _watch(self) -> None:
        if not hasattr(select, "epoll"):
            return
        self._policy.started(self._loop.now)
        self._epoll = select.epoll()
        self._epoll.register(self._listen_socket.socket, select.EPOLLRDHUP)
        self._loop.watch(self._epoll.fileno(), READ, lambda events: self._was_shut_down())

    def _unwatch(self) -> None:
        if self._epoll is not None:
            self._loop.unwatch(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _was_shut_down(self) -> None:
        self._unwatch()
        what = f"a program has shut down the socket {self._listen_socket}, which all share: nobody can connect any more"
        if self._listen_socket.is_inherited:
            self._notify(f"{what}; it was handed over by another program, which has to make it again")
        else:
            self._again_later(what)

    def _listen_again(self) -> None:
        try:
            self._listen_socket.listen_again()
        except IpclockerError as problem:
            self._again_later(str(problem))
            return
        self._notify(f"listening on {self._listen_socket} again: the programs are renewed")
        self._watch()
        self._renewed()

    def _again_later(self, why: str) -> None:
        pause = self._policy.died(self._loop.now)
        self._notify(f"{why}; it is made again in {pause:.1f} s")
        self._timer = self._loop.call_at(self._loop.now + pause, self._listen_again)
