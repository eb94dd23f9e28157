"""A lease renewed in a thread, over a connection of the thread's own, beside whatever its holder does.

The thread knows nothing of the Locker that it works for: one that nobody has any more is not kept alive by it.
"""

from __future__ import annotations

import select
import socket
import time
from math import inf
from threading import Event, Thread, current_thread

from .acquisition import LockAcquisition
from .connector import ServerConnector
from .keepalive import KeepAlive, LockLoss
from .lease import Lease


class _Stopped(Exception):
    """The lock is given back."""


class RenewalThread:
    """Renews what a claim holds until it is stopped; `lost` is set when that can't be done, or the server says so."""

    def __init__(self, acquisition: LockAcquisition, lost: Event) -> None:
        self.lease = Lease(acquisition.settings.lease, min(held.asked for held in acquisition.grants))
        self._connector = ServerConnector(acquisition.settings, self._wait)
        self._connector.address, self._connector.server = acquisition.connector.address, acquisition.connector.server
        self._keepalive = KeepAlive(self._connector, acquisition.grants, self.lease)
        self._lost = lost
        self._woken, self._waker = socket.socketpair()
        self._thread = Thread(target=self._run, name="ipclocker lease", daemon=True)
        self._thread.start()

    @property
    def loss(self) -> LockLoss | None:
        """What the server has said of a loss."""
        return self._keepalive.loss

    def stop(self) -> None:
        """Renew no more; on return the thread is at its end."""
        self._waker.send(b".")
        if self._thread is not current_thread():  # a Locker may be collected as garbage anywhere
            self._thread.join()
        self._woken.close()
        self._waker.close()

    def abandon(self) -> None:
        """For a fork, which has no such thread: give up our share in its connections."""
        self._connector.drop()
        self._woken.close()
        self._waker.close()

    def _run(self) -> None:
        try:
            while self._keepalive.loss is None and time.monotonic() < self.lease.stop_at:
                self._keepalive.step(self.lease.stop_at)
            self._lost.set()
        except _Stopped:
            pass
        finally:
            self._connector.drop()

    def _wait(self, sock: socket.socket | None, events: int, deadline: float) -> bool:
        """As `link.block` does, but for a stop."""
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if sock is not None:
            poller.register(sock, events)
        while True:
            left = deadline - time.monotonic()
            ready = poller.poll(None if deadline == inf else max(0.0, min(left, 3600.0)) * 1000)
            if any(descriptor == self._woken.fileno() for descriptor, _ in ready):
                raise _Stopped
            if ready:
                return True
            if left <= 0:
                return False
