"""Looking up host names for an event loop: a thread waits for a silent name server, and the loop goes on."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from functools import partial

from .loop import Loop

_KEEP = 60.0  # seconds for which an answer, or that there is none, is used: a changed address is known in a minute
_MOST = 1_000  # names that wait to be looked up, and names that are kept: a bound on memory, since clients give names


class Resolver:
    """Looks up names in a thread, one after the other, and keeps the answers for a minute."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._known: dict[str, tuple[float, list[str]]] = {}  # until when, and what
        self._asked: set[str] = set()
        self._names: queue.Queue[str | None] = queue.Queue()  # None ends the thread
        self._thread: threading.Thread | None = None

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of a name that are known by now, without waiting; none if they are still looked up."""
        until, found = self._known.get(name, (0.0, []))
        if until <= self._loop.now and name not in self._asked and len(self._asked) < _MOST:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_up, daemon=True)
                self._thread.start()
            self._asked.add(name)
            self._names.put(name)
        return found

    def close(self) -> None:
        """Stop; the thread's look-up that is under way ends by itself."""
        self._names.put(None)

    def _look_up(self) -> None:
        """Run in the thread, until it is told to end."""
        while (name := self._names.get()) is not None:
            addresses: list[str] = []
            with contextlib.suppress(OSError, UnicodeError):
                infos = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
                addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
            self._loop.call_from_thread(partial(self._take, name, addresses))

    def _take(self, name: str, addresses: list[str]) -> None:
        self._asked.discard(name)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[name] = (self._loop.now + _KEEP, addresses)
