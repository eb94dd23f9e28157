"""The requests of a worker, and the moments in which it must not end: while it has accepted a connection.

A worker may be told to stop at any time. In a request it only takes note; while it waits for the next one it ends at
once. In between there is an instant in which the wait is over and the program does not know of it yet: the kernel has
given the connection to this process, and Python calls the signal's handler before it goes on. So a handler that ends
a waiting process first looks at its open sockets. Nothing can change while it looks, since it runs in the thread
that would accept.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import time
from typing import Any

from .worker_channel import WorkerEnd


def has_connection() -> bool:
    """Tell if this process has accepted a connection at a socket of its own; True if that can't be known."""
    numbers = _descriptors()
    if numbers is None or not hasattr(socket, "SO_ACCEPTCONN"):
        return True
    listening: set[Any] = set()
    connected: set[Any] = set()
    for number in numbers:
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            sock = socket.socket(fileno=number)
            try:
                name = sock.getsockname()
                where = name[1] if sock.family in (socket.AF_INET, socket.AF_INET6) else name
                accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                (listening if accepts else connected).add((sock.family, where))
            finally:
                sock.detach()  # it stays open
        except OSError:
            continue  # the folder itself, closed by now, or of a family that has no names
    return bool(listening & connected)


class Requests:
    """The requests that a worker handles, and what its manager is told of them if there is a channel to one."""

    def __init__(self, channel: WorkerEnd | None = None) -> None:
        self._channel = channel
        self._done = 0

    @property
    def are_watched(self) -> bool:
        """True if there is a manager that ends a worker whose request takes too long."""
        return self._channel is not None

    def report_ready(self) -> None:
        """Tell the manager that this worker is up: requests may come."""
        if self._channel is not None:
            self._channel.ready()

    def report_asked(self) -> None:
        """Tell the manager that this worker ends since a signal has told it to stop."""
        if self._channel is not None:
            self._channel.ends_as_asked()

    def begin(self, timeout: float) -> None:
        """Note that a request begins, which may take `timeout` seconds; 0: any time."""
        if self._channel is not None and timeout:
            self._channel.begin(time.monotonic() + timeout)

    def end(self) -> None:
        """Note that the request is done."""
        self._done += 1
        if self._channel is not None:
            self._channel.end(self._done)

    def limit(self, most: int, most_size: int, every: int) -> str | None:
        """Return the limit that was reached, in words; None if none was.

        `most`: the number of requests; `most_size`: kilobytes of memory, checked after `every` so many requests; 0: no
        limit.
        """
        if most and self._done >= most:
            return f"max_requests ({self._done})"
        if most_size and every and self._done % every == 0:
            size = resident_size()
            if size > most_size:
                return f"max_size ({size} of {most_size} KB, after {self._done} requests)"
        return None


def resident_size() -> int:
    """Return the kilobytes of memory that this process has; the most it ever had where the system shows only that."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _descriptors() -> list[int] | None:
    """Return all open descriptors; None where the system does not show them."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return None
