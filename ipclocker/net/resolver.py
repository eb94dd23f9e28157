"""Looking up host names for an event loop: a thread waits for a silent name server, and the loop goes on."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections import deque

from .loop import READ, Loop

_KEEP = 60.0  # seconds for which an answer, or that there is none, is used: a changed address is known in a minute
_MOST = 1_000  # names that wait to be looked up, and names that are kept: a bound on memory, since clients give names


class Resolver:
    """Looks up names in a thread, one after the other, and keeps the answers for a minute."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._known: dict[str, tuple[float, list[str]]] = {}  # until when, and what
        self._asked: set[str] = set()
        self._names: queue.Queue[str] = queue.Queue()
        self._found: deque[tuple[str, list[str]]] = deque()
        self._receiver: socket.socket | None = None

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of a name that are known by now, without waiting; none if they are still looked up."""
        until, found = self._known.get(name, (0.0, []))
        if until <= self._loop.now and name not in self._asked and len(self._asked) < _MOST:
            if self._receiver is None:
                self._start()
            self._asked.add(name)
            self._names.put(name)
        return found

    def close(self) -> None:
        """Stop; the thread's look-up that is under way ends by itself."""
        if self._receiver is not None:
            self._loop.unwatch(self._receiver)
            self._receiver.close()

    def _start(self) -> None:
        self._receiver, sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._loop.watch(self._receiver, READ, self._take)
        threading.Thread(target=_look_up, args=(self._names, self._found, sender.detach()), daemon=True).start()

    def _take(self, events: int) -> None:
        assert self._receiver is not None
        self._receiver.recv(4096)
        while self._found:
            name, addresses = self._found.popleft()
            self._asked.discard(name)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[name] = (self._loop.now + _KEEP, addresses)


def _look_up(names: queue.Queue[str], found: deque[tuple[str, list[str]]], wake: int) -> None:
    """Run in the thread, for ever. It does not matter if the pipe is full or closed: nobody waits then."""
    while True:
        name = names.get()
        addresses: list[str] = []
        with contextlib.suppress(OSError, UnicodeError):
            infos = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
            addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
        found.append((name, addresses))
        with contextlib.suppress(OSError):
            os.write(wake, b".")
