"""A client of the lock server: its connection joined to what handles its requests."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from typing import Callable

from ...net.loop import READ, WRITE, Loop
from ...net.transport import DONTWAIT, Transport, silence
from ..model import HolderProcess
from ..wire import replies
from .group_commit import GroupCommit
from .holder_monitor import HolderMonitor
from .request_handler import RequestHandler

_SHARE = 0.002  # seconds that one client may have of a turn of the loop, so that many can be served in between
_HANG_UP = getattr(select, "POLLRDHUP", 0)  # the end of half of a connection; that of both, poll reports unasked

log = logging.getLogger(__name__)


def is_connected(sock: socket.SocketType) -> bool:
    """Tell whether the other side is still there, as far as the kernel knows at this instant."""
    poller = select.poll()
    poller.register(sock, _HANG_UP)
    return not poller.poll(0)


def warn_classic(sock: socket.SocketType, handler: RequestHandler, word: bytes) -> None:
    """Tell a classic client this error before its connection is closed without the answer that it waits for.

    A classic lockersh whose connection just ends takes that for the grant, and runs its command without the lock; an
    error makes it stop. A client with a session or a token asks again by itself, and an error would stop it.
    """
    if not handler.session and not handler.confirms:
        with contextlib.suppress(OSError):
            sock.send(replies.error(word), DONTWAIT)


class Newcomer:
    """Stands for the connection of the client that is served for the first time just now."""

    sock: socket.SocketType

    def flush(self) -> None:
        """Send nothing: who serves it does that."""

    def is_connected(self) -> bool:
        """Tell whether the client is still there."""
        return is_connected(self.sock)


class _Closed:
    """Stands for a connection that is closed."""

    def flush(self) -> None:
        pass

    def is_connected(self) -> bool:
        return False


_CLOSED = _Closed()


class ClientConnection(Transport):
    """One client that stays. `flush` decides, for every answer, whether it may be sent yet; nothing else does.

    `on_closed` is called with it when it was closed, for whatever reason.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.SocketType,
        handler: RequestHandler,
        group_commit: GroupCommit | None,
        monitor: HolderMonitor,
        on_closed: Callable[[ClientConnection], None],
    ) -> None:
        super().__init__(loop, sock)
        self.holder: HolderProcess | None = None  # whose host can be heard over this connection
        self.heard_at = 0.0  # when the client has last sent something (seconds, monotonic)
        self._goes_on = False  # in the next turn, since its share of this one is used up
        self._monitor = monitor
        self.handler = handler
        handler.connection = self
        self._group_commit = group_commit
        self._on_closed = on_closed

    def last_heard(self) -> float:
        """Return when the client's host was last heard of (seconds, monotonic); its kernel's acknowledgements count."""
        return time.monotonic() - silence(self.sock)

    def close(self) -> None:
        """Hang up; what is unsent is dropped."""
        if self.is_open and self.holder is not None:
            self._monitor.note_heard(self.holder, self.last_heard())
            self._monitor.detach(self.holder, self)
        super().close()

    def flush(self) -> None:
        """Send what the handler has for the client, and let it go on as long as the client reads.

        What shows a change that is not on disk yet stays with the handler; GroupCommit calls `flush_durable` then.
        When the client's share of this turn of the loop is used up, it goes on in the next.
        """
        if self._goes_on:
            return
        share_ends = 0.0
        handler = self.handler
        group_commit = self._group_commit
        if handler.holder is not self.holder and self.is_open:
            self._attach()
        try:
            while self.is_open:
                output = handler.output
                if output:
                    reveals, claims = handler.reveals_uncommitted, handler.claims_hold
                    if (
                        (reveals or claims)
                        and group_commit is not None
                        and group_commit.must_wait(self, reveals, claims)
                    ):
                        self._hold_back()
                        return
                    data = output[0] if len(output) == 1 else b"".join(output)
                    output.clear()
                    handler.reveals_uncommitted = handler.claims_hold = False
                    if not self.send(data):
                        break
                elif self._unsent and not self.send(b""):
                    break
                if handler.undelivered is not None:
                    handler.on_delivered(self._loop.now)
                if not handler.paused or handler.waiting or handler.closing:
                    break
                share_ends = share_ends or time.monotonic() + _SHARE
                handler.resume(self._loop.now)
                if time.monotonic() >= share_ends:
                    self._go_on_later()
                    return
            if handler.closing and not self._unsent:
                self.close()
            elif self._events != READ or self._unsent:
                self._wait()
        except OSError:
            self.close()

    def _go_on_later(self) -> None:
        """Read nothing more until all that was read is done, which goes on in the next turn."""
        self._goes_on = True
        self.wait_for(0)
        self._loop.call_at(time.monotonic(), self._go_on)  # not what is now for this turn: that would still be in it

    def _go_on(self) -> None:
        self._goes_on = False
        try:
            self.flush()
        except Exception:
            log.exception("a request could not be served")
            self.on_fault()

    def flush_durable(self) -> None:
        """Send what was held back: it is on disk."""
        self.handler.reveals_uncommitted = self.handler.claims_hold = False
        self.flush()

    def abort_uncommitted(self) -> None:
        """Say that what was done for the client could not be kept and was taken back, and no more."""
        if not self.handler.output:
            return  # it waits on, as it did before that
        self.handler.abort(b"unwritable")
        self.flush_durable()

    def end(self, word: bytes) -> None:
        """Hang up on a client that would have stayed; one that waits for an answer is told why (see `warn_classic`).

        So is one that has not said yet who it is: its LOCK may be on its way.
        """
        handler = self.handler
        if handler.waiting is not None or handler.output or not handler.user:
            warn_classic(self.sock, handler, word)
        self.close()

    def is_idle(self) -> bool:
        """Tell whether nobody would miss the connection: nothing is on its way, held or waited for."""
        return not (self._unsent or self._goes_on) and self.handler.is_idle()

    def end_idle(self) -> None:
        """Hang up on a client that does nothing. It waits for no answer, so none could be mistaken for one."""
        self.handler.closing = True  # in good order: there is no reason to look at its process
        self.close()

    def is_connected(self) -> bool:
        """Tell whether the client is still there, as far as the kernel knows at this instant."""
        return self.is_open and is_connected(self.sock)

    # As a transport

    def on_data(self, data: bytes) -> None:
        # The time is taken behind the read: a lease counts from when its renewal was sent, so not from before.
        self.heard_at = now = time.monotonic()
        self.handler.receive(data, now)
        self.flush()

    def on_end(self) -> None:
        handler = self.handler
        if handler.output and not handler.waiting and handler.undelivered is None:
            # It has only closed its half; an answer that waits for the disk is still for it.
            handler.closing = True
            self.wait_for(0)
        else:
            self.close()

    def on_writable(self) -> None:
        self.flush()

    def on_stalled(self) -> None:
        log.warning("a client has left its answers unread for %.0f s and is cut off", self.patience)
        with contextlib.suppress(OSError):
            self.sock.send(replies.error(b"answers_unread"), DONTWAIT)
        self.close()

    def on_fault(self) -> None:
        warn_classic(self.sock, self.handler, b"internal")
        self.close()

    def on_close(self) -> None:
        self._on_closed(self)
        self.handler.on_disconnect(self._loop.now)
        self.handler.connection = _CLOSED  # else the two would keep each other until Python looks for garbage

    # Inside

    def _attach(self) -> None:
        holder = self.handler.holder
        if holder != self.holder:
            if self.holder is not None:
                self._monitor.detach(self.holder, self)
            self.holder = holder
            if holder is not None:
                self._monitor.attach(holder, self)
        self.handler.holder = self.holder  # so that it is the very same the next time

    def _wait(self) -> None:
        """Wait for what has to come next."""
        if not self.is_open:
            return
        if self._unsent:
            self.wait_for(WRITE | READ if self.handler.waiting else WRITE)
        else:
            self.wait_for(READ)

    def _hold_back(self) -> None:
        """Send what may be sent, and read no more of a client that has to have its answer first."""
        handler = self.handler
        if not (self._unsent or handler.paused or handler.closing):
            self.wait_for(READ)
        elif not self._unsent or self.send(b""):
            self.wait_for(READ if handler.waiting else 0)
        else:
            self.wait_for(WRITE | READ if handler.waiting else WRITE)
