"""Writes output without ever waiting for its reader: what is not taken now is written later."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import time
from typing import Callable

from ...net.loop import WRITE, Loop

log = logging.getLogger(__name__)
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
_TO_WRITE = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK


def open_file(path: str) -> int:
    """Open a file to append to, or a pipe or a device that somebody reads. Raises OSError."""
    return os.open(path, _APPEND, 0o644)


def unblocked(descriptor: int) -> int:
    """Open a descriptor that does not block for the same file as one that others share, which may block.

    For a terminal or a pipe that is an open file of its own. A regular file does not block: the descriptor is only
    copied, so that all who share the file write at one position. Raises OSError.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):  # a system without it, or a terminal that is another user's
            return os.open(f"/dev/fd/{descriptor}", _TO_WRITE)
    return os.dup(descriptor)


class NonblockingWriter:
    """Writes to a descriptor of its own. What can't be written at all is lost, which the log says once."""

    def __init__(self, loop: Loop, title: str, open_it: Callable[[], int], drained: Callable[[], None]) -> None:
        """Open it by `open_it`, which returns a descriptor; raises the OSError of that.

        `title` is its name in the log. `drained` is called when it is not full any more.
        """
        self._loop = loop
        self._title = title
        self._open = open_it
        self._drained = drained
        self._failing = False
        self._pending = b""
        self._use(open_it())

    @property
    def is_full(self) -> bool:
        """True while something waits to be written."""
        return bool(self._pending)

    def write(self, data: bytes) -> None:
        """Write, now or as soon as it can be."""
        if self._pending:
            self._pending += data
            return
        self._pending = self._write(data)
        if self._pending:
            self._loop.watch(self._descriptor, WRITE, self._ready)

    def reopen(self) -> None:
        """Open the file that has the name now, and write there; in the old one if that can't be opened."""
        try:
            descriptor = self._open()
        except OSError as error:
            log.error("%s can't be opened anew (%s): it stays as it was", self._title, error.strerror)
            return
        self._unwatch()
        os.close(self._descriptor)
        pending, self._pending = self._pending, b""
        self._use(descriptor)
        if pending:
            self.write(pending)
            if not self._pending:
                self._drained()

    def wait(self, deadline: float) -> None:
        """Wait until it is not full any more, or until the deadline (monotonic seconds). The loop waits, too."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        while self._pending and (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                self._ready(WRITE)

    def close(self) -> None:
        """Write nothing more; what waits is lost."""
        self._unwatch()
        self._pending = b""
        os.close(self._descriptor)

    def _use(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)

    def _unwatch(self) -> None:
        if self._pending:
            self._loop.unwatch(self._descriptor)

    def _ready(self, events: int) -> None:
        left = self._write(self._pending)
        if not left:
            self._unwatch()
        self._pending = left
        if not left:
            self._drained()

    def _write(self, data: bytes) -> bytes:
        """Write what can be written now; return what is left."""
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


def keep_log_from_blocking() -> None:
    """Write to stderr only what it takes at once: a terminal that is stopped must not stop this process."""
    with contextlib.suppress(OSError):
        descriptor = unblocked(2)
        os.dup2(descriptor, 2, inheritable=False)
        os.close(descriptor)
