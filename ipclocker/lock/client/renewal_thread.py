"""A thread that renews a lease, over a connection of its own, while the program does what the lock protects.

The thread has no reference to its Locker, so it does not keep alive a Locker that nobody uses any more.
"""

from __future__ import annotations

import select
import socket
import time
from threading import Event, Thread, current_thread

from .acquisition import LockAcquisition
from .connection import poll_until
from .connector import ServerConnector
from .keepalive import KeepAlive, LockLoss
from .lease import Lease


class _Stopped(Exception):
    """The lock is released, and the thread is to end."""


class RenewalThread:
    """Renews the grants of an acquisition until it is stopped.

    `lost` is set when the server says that one is lost or recalled, or when the lease was not renewed by its
    `stop_at`.
    """

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
        """The loss that the server has reported, None if there is none."""
        return self._keepalive.loss

    def stop(self) -> None:
        """Stop renewing; on return the thread has ended, unless it is the one that calls."""
        self._waker.send(b".")
        if self._thread is not current_thread():  # a Locker may be collected as garbage anywhere
            self._thread.join()
        self._woken.close()
        self._waker.close()

    def abandon(self) -> None:
        """Close what a fork has copied of the thread's connections; the thread itself is the parent's."""
        self._connector.close()
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
            self._connector.close()

    def _wait(self, sock: socket.socket | None, events: int, deadline: float) -> bool:
        """Wait as `connection.wait_ready` does; raises _Stopped when the thread is to end."""
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if sock is not None:
            poller.register(sock, events)
        ready = poll_until(poller, deadline)
        if any(descriptor == self._woken.fileno() for descriptor, _ in ready):
            raise _Stopped
        return bool(ready)
