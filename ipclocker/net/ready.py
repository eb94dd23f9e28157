"""Waiting until a descriptor is ready: by poll(2), or by select(2) where Python has no poll.

There is none on some systems, and none after eventlet has put its own functions in the place of Python's. So `select`
is looked up at each call: gevent and eventlet may replace its functions at any time.

Deadlines are seconds on the monotonic clock.
"""

from __future__ import annotations

import select
import socket
import time
from math import inf
from typing import TYPE_CHECKING, Callable, Optional, Union

READ: int = getattr(select, "POLLIN", 1)
WRITE: int = getattr(select, "POLLOUT", 4)
_LONGEST_POLL = 3600.0  # seconds; poll() takes milliseconds as a C int, so a far deadline is waited for in pieces

Watchable = Union[int, socket.SocketType]  # a descriptor, or a socket
Wait = Callable[[Optional[socket.socket], int, float], bool]

if TYPE_CHECKING:
    from typing import Protocol

    class Poller(Protocol):
        """What waits for descriptors, as `select.poll` does."""

        def register(self, descriptor: Watchable, events: int, /) -> None:
            """Wait for this descriptor, too, until it is ready for one of the events."""

        def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
            """Wait for so many milliseconds; return each descriptor that is ready, and for what."""


def new_poller() -> Poller:
    """Make what waits for descriptors."""
    try:
        return select.poll()
    except AttributeError:
        return _SelectPoller()


def wait_ready(sock: socket.socket | None, events: int, deadline: float) -> bool:
    """Wait until the socket is ready (READ or WRITE), and return True; False if the deadline passes before.

    Without a socket it sleeps until the deadline.
    """
    poller = new_poller()
    if sock is not None:
        poller.register(sock, events)
    return bool(poll_until(poller, deadline))


def wait_until(latest: float) -> Wait:
    """Make a `wait_ready` that gives up at `latest` (monotonic seconds), whatever the deadline."""
    return lambda sock, events, deadline: wait_ready(sock, events, min(deadline, latest))


def poll_until(poller: Poller, deadline: float) -> list[tuple[int, int]]:
    """Poll until something is ready, and return that as `poll` does; the empty list if the deadline passes before."""
    while True:
        left = deadline - time.monotonic()
        ready = poller.poll(None if deadline == inf else max(0.0, min(left, _LONGEST_POLL)) * 1000)
        if ready or left <= 0:
            return ready


class _SelectPoller:
    """The same by select(2), which knows no descriptor above 1023."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, descriptor: Watchable, events: int, /) -> None:
        self._wanted[descriptor if isinstance(descriptor, int) else descriptor.fileno()] = events

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        readers = [descriptor for descriptor, events in self._wanted.items() if events & READ]
        writers = [descriptor for descriptor, events in self._wanted.items() if events & WRITE]
        # What poll reports unasked, as the end of a connection, shows here as readable or writable.
        readable, writable, _ = select.select(readers, writers, [], None if timeout is None else timeout / 1000)
        ready = dict.fromkeys(readable, READ)
        for descriptor in writable:
            ready[descriptor] = ready.get(descriptor, 0) | WRITE
        return list(ready.items())
