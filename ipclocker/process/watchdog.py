"""A process that ends a command when the one beside the command can't: because that was stopped, or killed.

It is told until when the command may run, and again after each renewal. If it hears nothing more until then, or if the
other end of its pipe is closed without a word, it ends the command and all that belongs to it. It is in a session of
its own, so that a stop of the whole job does not reach it.
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
_DISMISSED = -1.0
_LATER = 0.1  # seconds after its time, so that whoever is beside the command comes first, and can say so


class Watchdog:
    """To be made before the command starts. `kill` is called in the other process."""

    def __init__(self, until: float, kill: Callable[[], None]) -> None:
        """Raises IpclockerError if there can be no further process."""
        receiver, self._sender = os.pipe()
        ready, word = os.pipe()
        try:
            between = os.fork()
        except OSError as error:
            raise IpclockerError(f"cannot make a process that ends the command in time: {error.strerror}") from None
        if not between:
            _begin(receiver, word, until, kill)
        os.close(receiver)
        os.close(word)
        os.set_blocking(self._sender, False)
        os.waitpid(between, 0)
        began = os.read(ready, 1)
        os.close(ready)
        if not began:
            raise IpclockerError("cannot make a process that ends the command in time")
        self._until = until

    def set_deadline(self, until: float) -> None:
        """The command may run until then."""
        if until != self._until:
            self._until = until
            self._send(until)

    def disarm(self) -> None:
        """The command needs no ending any more."""
        self._send(_DISMISSED)
        os.close(self._sender)

    def _send(self, until: float) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it was stopped for ever, or killed
            os.write(self._sender, _TIME.pack(until))


def _begin(receiver: int, word: int, until: float, kill: Callable[[], None]) -> NoReturn:
    """In the process between: leave a child that is nobody's, and so no surprise to who waits for children."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        _close_all_but(receiver, word)
        os.write(word, b".")
        os.close(word)
        if _hear(receiver, until):
            kill()
        os._exit(0)
    finally:
        os._exit(INTERNAL)


def _hear(receiver: int, until: float) -> bool:
    """Wait until the time is over or nobody tells it any more; False if there is nothing to do."""
    poller = select.poll()
    poller.register(receiver, select.POLLIN)
    while True:
        left = until + _LATER - time.monotonic()
        # What was told comes first: this process may have been stopped as well.
        if poller.poll(max(0.0, min(left, 3600.0)) * 1000):
            told = os.read(receiver, _TIME.size * 64)
            if not told:
                return True
            until = _TIME.unpack(told[-_TIME.size :])[0]
            if until == _DISMISSED:
                return False
        elif left <= 0:
            return True


def _close_all_but(*kept: int) -> None:
    """No pipe, terminal or socket is held open by this process."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        numbers = sorted(map(int, os.listdir("/dev/fd")))
    except OSError:
        numbers = list(range(256))
    for number in numbers:
        if number < 3:
            os.dup2(null, number)
        elif number not in kept:
            with contextlib.suppress(OSError):  # the one by which they were listed
                os.close(number)
