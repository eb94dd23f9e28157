"""A small process that ends a command in time when the process that should do so can't: it was stopped, or killed.

It is told a deadline, and a later one after each renewal. When the deadline has passed, or when the other end of its
socket is closed without a message, it ends the command and all that belongs to it. It is in a session of its own, so
that a stop of the whole job does not reach it. If it was killed itself, that shows at the next deadline, or at once
where a loop watches it, and another one is started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from math import inf
from typing import Callable, NoReturn

from ..errors import INTERNAL, IpclockerError

_TIME = struct.Struct("d")  # monotonic seconds, the same clock for all processes of a host
_DISARMED = -1.0
STANDS_BY = 1e18  # seconds; a deadline that is not infinite, which would end all if this process is killed
_LATER = 0.1  # seconds after the deadline: so the process beside the command comes first, and can tell its user
_LONGEST_WAIT = 3600.0  # seconds; poll(2) takes no infinity


class Watchdog:
    """The watchdog as its owner sees it. To be made before the command starts."""

    def __init__(self, deadline: float, kill: Callable[[], None]) -> None:
        """Start the process, which calls `kill` at the deadline (monotonic seconds).

        With STANDS_BY there is nothing to end yet: not even if this process is killed. Raises IpclockerError if there
        can be no further process.
        """
        self._kill = kill
        self._deadline = deadline
        self._sender = _start(deadline, kill)

    def set_deadline(self, deadline: float) -> None:
        """Let the command run until then (monotonic seconds). Never blocks on the process.

        If that was killed, another one is started. Raises IpclockerError if there can be none.
        """
        if deadline == self._deadline:
            return
        before, self._deadline = self._deadline, deadline
        try:
            self._send(deadline)
        except BrokenPipeError:
            self._deadline = before  # so that it is tried again, if this fails
            self.restart(deadline)

    def restart(self, deadline: float) -> None:
        """Start another process in the place of one that was killed. Raises IpclockerError if there can be none."""
        sender = _start(deadline, self._kill)
        os.close(self._sender)
        self._sender, self._deadline = sender, deadline

    def fileno(self) -> int:
        """Return a descriptor for a loop, which is readable when the process was killed; until the next restart."""
        return self._sender

    def disarm(self) -> None:
        """End the watchdog: the command has ended."""
        with contextlib.suppress(BrokenPipeError):
            self._send(_DISARMED)
        os.close(self._sender)

    def close_after_fork(self) -> None:
        """Leave the watchdog to the parent, in a process that was forked and executes no other program."""
        os.close(self._sender)

    def _send(self, deadline: float) -> None:
        with contextlib.suppress(BlockingIOError):  # it was stopped for ever
            os.write(self._sender, _TIME.pack(deadline))


def _start(deadline: float, kill: Callable[[], None]) -> int:
    """Start the process; return the socket by which it is told deadlines. Raises IpclockerError."""
    receiver, sender = (end.detach() for end in socket.socketpair())
    ready, ready_sender = os.pipe()
    try:
        try:
            between = os.fork()
            if not between:
                _begin(receiver, ready_sender, deadline, kill)
        finally:
            os.close(receiver)
            os.close(ready_sender)
        os.set_blocking(sender, False)
        with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored the kernel keeps no status
            os.waitpid(between, 0)
        if not os.read(ready, 1):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    except OSError as error:
        os.close(sender)
        raise IpclockerError(f"cannot make a process that ends the command in time: {error.strerror}") from None
    finally:
        os.close(ready)
    return sender


def _begin(receiver: int, ready: int, deadline: float, kill: Callable[[], None]) -> NoReturn:
    """In the process between: leave a child that has no parent here, and so surprises nobody who waits for children."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        _close_all_but(receiver, ready)
        os.write(ready, b".")
        os.close(ready)
        if _wait(receiver, deadline):
            kill()
        os._exit(0)
    finally:
        os._exit(INTERNAL)


def _wait(receiver: int, deadline: float) -> bool:
    """Wait for the deadline, or the end of the process that sets it; return False if disarmed."""
    poller = select.poll()
    poller.register(receiver, select.POLLIN)
    while True:
        left = deadline + _LATER - time.monotonic()
        # Messages come before the deadline: this process may have been stopped as well.
        if poller.poll(max(0.0, min(left, _LONGEST_WAIT)) * 1000):
            data = os.read(receiver, _TIME.size * 64)
            if not data:
                return not STANDS_BY <= deadline < inf
            deadline = _TIME.unpack(data[-_TIME.size :])[0]
            if deadline == _DISARMED:
                return False
        elif left <= 0:
            return True


def _close_all_but(*kept: int) -> None:
    """Hold no pipe, terminal or socket open in this process."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        numbers = sorted(map(int, os.listdir("/dev/fd")))
    except OSError:
        numbers = list(range(256))  # more than a tool has open when it starts a watchdog
    for number in numbers:
        if number < 3:
            os.dup2(null, number)
        elif number not in kept:
            with contextlib.suppress(OSError):  # the one by which they were listed
                os.close(number)
