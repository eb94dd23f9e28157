"""A small process that ends a command in time when the process that should do so can't: it was stopped, or killed.

It is told a deadline, and a later one after each renewal. When the deadline has passed, or when the other end of its
pipe is closed without a message, it ends the command and all that belongs to it. It is in a session of its own, so
that a stop of the whole job does not reach it.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import time
from typing import Callable, NoReturn

from ..errors import INTERNAL, IpclockerError

_TIME = struct.Struct("d")  # monotonic seconds, the same clock for all processes of a host
_DISARMED = -1.0
_LATER = 0.1  # seconds after the deadline: so the process beside the command comes first, and can tell its user
_LONGEST_WAIT = 3600.0  # seconds; poll(2) takes no infinity


class Watchdog:
    """The watchdog as its owner sees it. To be made before the command starts."""

    def __init__(self, deadline: float, kill: Callable[[], None]) -> None:
        """Start the process, which calls `kill` at the deadline (monotonic seconds).

        Raises IpclockerError if there can be no further process.
        """
        receiver, self._sender = os.pipe()
        ready, ready_sender = os.pipe()
        try:
            between = os.fork()
        except OSError as error:
            raise IpclockerError(f"cannot make a process that ends the command in time: {error.strerror}") from None
        if not between:
            _begin(receiver, ready_sender, deadline, kill)
        os.close(receiver)
        os.close(ready_sender)
        os.set_blocking(self._sender, False)
        os.waitpid(between, 0)
        began = os.read(ready, 1)
        os.close(ready)
        if not began:
            raise IpclockerError("cannot make a process that ends the command in time")
        self._deadline = deadline

    def set_deadline(self, deadline: float) -> None:
        """Let the command run until then (monotonic seconds). Never blocks."""
        if deadline != self._deadline:
            self._deadline = deadline
            self._send(deadline)

    def disarm(self) -> None:
        """End the watchdog: the command has ended."""
        self._send(_DISARMED)
        os.close(self._sender)

    def _send(self, deadline: float) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it was stopped for ever, or killed
            os.write(self._sender, _TIME.pack(deadline))


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
                return True
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
