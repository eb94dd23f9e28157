"""A place where output is written and that never makes the writer wait: what it does not take now, it gets later."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import time
from typing import Any, Callable, cast

from ...net.loop import WRITE, Loop

log = logging.getLogger(__name__)
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
_TO_WRITE = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK


def open_file(path: str) -> int:
    """A file to append to, or a pipe or a device that somebody reads. Raises OSError."""
    return os.open(path, _APPEND, 0o644)


def unblocked(descriptor: int) -> int:
    """A descriptor for the same place as one that others share, which does not block though theirs may.

    For a terminal or a pipe that is an open file of its own; a regular file does not block, and where it is written
    to is for all who share it to say.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):  # a system without it, or a terminal that is another user's
            return os.open(f"/dev/fd/{descriptor}", _TO_WRITE)
    return os.dup(descriptor)


class Stream:
    """Writes to a descriptor. While that takes nothing, `is_full`; `drained` is called when it does again.

    What can't be written at all is lost, which the log says once.
    """

    def __init__(self, loop: Loop, title: str, open_it: Callable[[], int], drained: Callable[[], None]) -> None:
        """`title` names it in the log. Raises OSError if it can't be opened."""
        self._loop = loop
        self._title = title
        self._open = open_it
        self._drained = drained
        self._failing = False
        self._pending = b""
        self._use(open_it())

    @property
    def is_full(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._pending)

    def write(self, data: bytes) -> None:
        """Write, now or as soon as it can be."""
        if self._pending:
            self._pending += data
            return
        self._pending = self._write(data)
        if self._pending:
            self._loop.watch(cast(Any, self._descriptor), WRITE, self._ready)

    def reopen(self) -> None:
        """Go on in the file that has the name now; in the old one if that can't be opened."""
        try:
            descriptor = self._open()
        except OSError as error:
            log.error("%s can't be opened anew (%s): it stays as it was", self._title, error.strerror)
            return
        self._forget()
        os.close(self._descriptor)
        pending, self._pending = self._pending, b""
        self._use(descriptor)
        if pending:
            self.write(pending)
            if not self._pending:
                self._drained()

    def wait(self, deadline: float) -> None:
        """Wait until it is not full any more, or until the deadline (monotonic). For the end, when nothing else is."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        while self._pending and (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                self._ready(WRITE)

    def close(self) -> None:
        """Write no more."""
        self._forget()
        self._pending = b""
        os.close(self._descriptor)

    def _use(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)

    def _forget(self) -> None:
        if self._pending:
            self._loop.unwatch(cast(Any, self._descriptor))

    def _ready(self, events: int) -> None:
        left = self._write(self._pending)
        if not left:
            self._forget()
        self._pending = left
        if not left:
            self._drained()

    def _write(self, data: bytes) -> bytes:
        """Write what can be written; what is left."""
        try:
            while data:
                data = data[self._write_once(data) :]
        except BlockingIOError:
            return data
        except OSError as error:
            if not self._failing:
                log.error("%s can't be written (%s): lines of programs are lost", self._title, error.strerror)
            self._failing = True
            return b""
        if self._failing:
            self._failing = False
            log.info("%s can be written again", self._title)
        return b""

    def _write_once(self, data: bytes) -> int:
        if not self._is_socket:
            return os.write(self._descriptor, data)
        with socket.socket(fileno=os.dup(self._descriptor)) as sock:
            return sock.send(data, socket.MSG_DONTWAIT)
