"""The requests of a worker, and whether it may end: not while there is a connection that it has accepted.

A worker may be told to stop at any time. In a request it only takes note; while it waits for the next one it ends at
once. In between there is an instant in which the wait is over and the program does not know of it yet: the kernel has
given the connection to this process, and Python calls the signal's handler before it goes on. So a handler that ends
a waiting process looks first at what is open in it. Nothing can change while it looks, since it runs in the thread
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
    """Whether this process has a connection that came in at a socket that it listens on; if it can't know: True."""
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
                sock.detach()  # it stays open, for whoever it is
        except OSError:
            continue  # the folder itself, closed by now, or of a family that has no names
    return bool(listening & connected)


class Requests:
    """The requests that a worker handles, and what its manager is told of them if it has one by this line."""

    def __init__(self, line: WorkerEnd | None = None) -> None:
        self._line = line
        self._done = 0

    @property
    def are_watched(self) -> bool:
        """Whether somebody minds how long they take."""
        return self._line is not None

    def say_ready(self) -> None:
        """From now on there may be requests."""
        if self._line is not None:
            self._line.ready()

    def say_asked(self) -> None:
        """There are no more, since a signal has told this process to stop."""
        if self._line is not None:
            self._line.ends_as_asked()

    def begin(self, timeout: float) -> None:
        """One begins, which may take so many seconds; 0: any."""
        if self._line is not None and timeout:
            self._line.begin(time.monotonic() + timeout)

    def end(self) -> None:
        """It is done."""
        self._done += 1
        if self._line is not None:
            self._line.end(self._done)

    def limit(self, most: int, most_size: int, every: int) -> str | None:
        """The bound that was reached, in words: so many requests; a size in kilobytes, looked at every so many."""
        if most and self._done >= most:
            return f"max_requests ({self._done})"
        if most_size and every and self._done % every == 0:
            size = resident_size()
            if size > most_size:
                return f"max_size ({size} of {most_size} KB, after {self._done} requests)"
        return None


def resident_size() -> int:
    """The kilobytes of memory that this process has; where the system does not tell, that it ever had."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _descriptors() -> list[int] | None:
    """All that are open; None where the system does not tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return None
