"""A client that stays with the lock server: its socket joined to its conversation."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import sys
import termios
import time
from typing import Callable

from ...net.loop import READ, WRITE, Loop, Timer
from ..wire.replies import error
from .group_commit import GroupCommit
from .request_handler import RequestHandler

READ_PATIENCE = 60.0  # seconds that a client may leave its answers unread
PIECE = 65_536  # bytes read at a time
DONTWAIT = int(socket.MSG_DONTWAIT)

log = logging.getLogger(__name__)


class ClientConnection:
    """A client that stays: its socket, its conversation, and what it has not yet read of its answers.

    `closed` is called when it was closed, for whatever reason.
    """

    __slots__ = ("_closed", "_events", "_group_commit", "_loop", "_patience", "_unread", "_unsent", "handler", "sock")

    def __init__(
        self,
        loop: Loop,
        group_commit: GroupCommit | None,
        sock: socket.SocketType,
        handler: RequestHandler,
        closed: Callable[[ClientConnection], None],
    ) -> None:
        self.sock = sock
        self.handler = handler
        self._closed = closed
        self._loop = loop
        self._group_commit = group_commit
        self._unsent = b""
        self._unread = 0  # bytes that the kernel had for the client when its patience was last looked at
        self._patience: Timer | None = None
        self._events = 0
        if not handler.closing:
            self._await(READ)

    def flush(self) -> None:
        """Send what the conversation has for the client, and let it go on as long as the client reads.

        What may not be told yet stays with the conversation until `flush_durable`.
        """
        if not self._is_held_back():
            self.flush_durable()

    def flush_durable(self) -> None:
        """Send all that the conversation has for the client just now: it is kept."""
        handler = self.handler
        if self.sock.fileno() < 0:
            return
        try:
            while True:
                output = handler.output
                if output:
                    self._unsent += output[0] if len(output) == 1 else b"".join(output)
                    output.clear()
                    handler.reveals_uncommitted = False
                if self._unsent and not self._send():
                    break
                handler.undelivered = None
                if not handler.paused or handler.waiting or handler.closing:
                    break
                handler.resume(self._loop.now)
                if self._is_held_back():
                    return
        except OSError:
            self.close()
            return
        if self._unsent:
            self._await(WRITE | READ if handler.waiting else WRITE)
        elif handler.closing:
            self.close()
        elif self._events != READ:
            self._await(READ)

    def abort_uncommitted(self) -> None:
        """What was done for the client could not be kept and was taken back: say so, and no more."""
        self.handler.abort(b"unwritable")
        self.flush_durable()

    def close(self) -> None:
        """Cut the client off: it is gone, or there is nothing left to say."""
        if self.sock.fileno() < 0:
            return  # it was cut off while others were told of something
        if self._patience is not None:
            self._patience.cancel()
        self._await(0)
        self.sock.close()
        self._closed(self)
        self.handler.on_disconnect(self._loop.now)

    def _ready(self, events: int) -> None:
        try:
            if events & READ:
                data = self.sock.recv(PIECE, DONTWAIT)
                if not data:
                    self._hung_up()
                    return
                self.handler.receive(data, time.monotonic())  # as in the server: behind the read
            self.flush()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
        except Exception:  # as above
            log.exception("a request could not be served")
            self.close()

    def _is_held_back(self) -> bool:
        """Whether there is something to tell the client that shows what is not kept yet."""
        handler = self.handler
        if self._group_commit is None or not handler.output or not handler.reveals_uncommitted:
            return False
        if not self._group_commit.must_wait(self):
            return False
        if (self._unsent or handler.paused or handler.closing) and self.sock.fileno() >= 0:
            self._pause()
        return True

    def _pause(self) -> None:
        """Read no more of a client that has stopped, and send what it may be told."""
        handler = self.handler
        try:
            if self._unsent and not self._send():
                self._await(WRITE | READ if handler.waiting else WRITE)
                return
        except OSError:
            self.close()
            return
        self._await(READ if handler.waiting else 0)

    def _hung_up(self) -> None:
        handler = self.handler
        if handler.output and not handler.waiting and handler.undelivered is None:
            # It has only closed its half; an answer that waits for the disk is still for it.
            handler.closing = True
            self._await(0)
        else:
            self.close()

    def _send(self) -> bool:
        """Send what is unsent; whether all of it went. Raises OSError if the client is gone."""
        try:
            sent = self.sock.send(self._unsent, DONTWAIT)
        except BlockingIOError:
            sent = 0
        done = sent == len(self._unsent)
        self._unsent = b"" if done else self._unsent[sent:]
        if sent and self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not done and self._patience is None:
            self._unread = _unread(self.sock)
            self._patience = self._loop.call_at(self._loop.now + READ_PATIENCE, self._lose_patience)
        return done

    def _await(self, events: int) -> None:
        if events == self._events:
            return
        before, self._events = self._events, events
        if not events:
            self._loop.unwatch(self.sock)
        elif before:
            self._loop.change(self.sock, events, self._ready)
        else:
            self._loop.watch(self.sock, events, self._ready)

    def _lose_patience(self) -> None:
        if _unread(self.sock) < self._unread:
            self._unread = _unread(self.sock)
            self._patience = self._loop.call_at(self._loop.now + READ_PATIENCE, self._lose_patience)
            return
        log.warning("a client has left its answers unread for %.0f s and is cut off", READ_PATIENCE)
        with contextlib.suppress(OSError):
            self.sock.send(error(b"answers_unread"), DONTWAIT)
        self.close()


def _unread(sock: socket.SocketType) -> int:
    """Bytes that were sent and that the client's host has not taken yet; they become fewer while it reads slowly."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
