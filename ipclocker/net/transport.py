"""One connection that a server has accepted: bytes in, bytes out, and what the other side has not taken yet.

A subclass says what is done with the bytes. Nothing here blocks: what can't be sent at once is kept and sent when the
socket takes it, and a peer that takes nothing for too long is given up. The loop need not know a connection that is
served in one go: it is watched from the first `wait_for` on.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import sys
import termios

from .loop import READ, Loop, Timer

PIECE = 65_536  # bytes read at a time
_TCP_INFO = socket.TCP_INFO if sys.platform.startswith("linux") else -1
DONTWAIT = int(socket.MSG_DONTWAIT)  # as an int: the flag of an enum costs half a microsecond at each call

_LAST_DATA_RECEIVED, _LAST_ACK_RECEIVED = 52, 56  # where struct tcp_info has them, in milliseconds (linux/tcp.h)

log = logging.getLogger(__name__)


def silence(sock: socket.SocketType) -> float:
    """Return for how many seconds the peer's kernel has sent nothing, not even an acknowledgement.

    0 where that is not known: for a UNIX socket, and on systems other than Linux.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_ACK_RECEIVED + 4)
        received = (info[at : at + 4] for at in (_LAST_DATA_RECEIVED, _LAST_ACK_RECEIVED))
        return min(int.from_bytes(field, sys.byteorder) for field in received) / 1000
    except (OSError, ValueError):
        return 0.0


class Transport:
    """A connected socket in the turns of a loop, until it is closed."""

    patience = 60.0  # seconds in which the peer may take nothing of what is sent to it
    # The defaults stand on the class: most connections are served in one go, and need none of them.
    is_open = True  # it was not closed yet
    _events = 0
    _unsent = b""
    _unread = 0  # bytes that the kernel had for the peer when its patience was last looked at
    _stalled_timer: Timer | None = None

    def __init__(self, loop: Loop, sock: socket.SocketType) -> None:
        self.sock = sock
        self._loop = loop

    # What a subclass does

    def on_data(self, data: bytes) -> None:
        """Take bytes that have arrived, at most PIECE. It may raise OSError, which closes the connection."""
        raise NotImplementedError

    def on_end(self) -> None:
        """Note that the peer sends nothing more."""
        self.close()

    def on_writable(self) -> None:
        """Go on, since the socket takes bytes again."""
        self.send(b"")

    def on_stalled(self) -> None:
        """Note that the peer has taken nothing for `patience` seconds."""
        self.close()

    def on_fault(self) -> None:
        """Hang up, since a fault of ours has left the peer without an answer."""
        self.close()

    def on_close(self) -> None:
        """Note that the connection is closed, for whatever reason. Called once."""

    # What it can be asked for

    def on_ready(self, events: int) -> None:
        """Serve what the socket is ready for; for READ it may be called to see whether there is anything.

        A fault of ours costs this connection, and no other.
        """
        try:
            if not events & READ:
                self.on_writable()
                return
            data = self.sock.recv(PIECE, DONTWAIT)
            if data:
                self.on_data(data)
            else:
                self.on_end()
        except BlockingIOError:
            self.wait_for(READ)
        except OSError:
            self.close()
        except Exception:
            log.exception("a request could not be served")
            self.on_fault()

    def send(self, data: bytes) -> bool:
        """Send these bytes behind those that are still unsent; tell whether all are gone. Raises OSError."""
        if self._unsent:
            data = self._unsent + data
        try:
            sent = self.sock.send(data, DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            self._unsent = b""
            if self._stalled_timer is not None:
                self._stop_timer()
            return True
        self._unsent = data[sent:]
        if sent:
            self._stop_timer()
        if self._stalled_timer is None:
            self._start_timer()
        return False

    def wait_for(self, events: int) -> None:
        """Wait for READ, WRITE, both or (0) nothing from now on."""
        if events == self._events:
            return
        before, self._events = self._events, events
        if not events:
            self._loop.unwatch(self.sock)
        elif before:
            self._loop.change(self.sock, events, self.on_ready)
        else:
            self._loop.watch(self.sock, events, self.on_ready)

    def close(self) -> None:
        """Hang up; what is unsent is dropped. A second time nothing is done."""
        if not self.is_open:
            return
        if self._stalled_timer is not None:
            self._stop_timer()
        if self._events:
            self.wait_for(0)
        self.is_open = False
        self.sock.close()
        self.on_close()

    # Inside

    def _start_timer(self) -> None:
        self._unread = self._count_unread()
        self._stalled_timer = self._loop.call_at(self._loop.now + self.patience, self._look_at_peer)

    def _stop_timer(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None

    def _look_at_peer(self) -> None:
        self._stalled_timer = None
        if self._count_unread() < self._unread:
            self._start_timer()  # it reads slowly, but it reads
        else:
            self.on_stalled()

    def _count_unread(self) -> int:
        """Bytes that were sent and that the peer's host has not taken yet; they become fewer while it reads."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
