"""Renews a lease over a connection of its own, while the program does what the lock protects.

That is done in the background thread, which has no reference to the Renewal, and this has none to its Locker: so a
Locker that nobody uses any more is deleted, and with the last reference to its Renewal the lease is not renewed.
"""

from __future__ import annotations

import contextlib
import time
from threading import Event

from ...net.text import decode_text
from . import background
from .acquisition import LockAcquisition
from .connection import wait_ready
from .connector import ServerConnector
from .keepalive import KeepAlive, LockLoss
from .lease import Lease
from .steps import Steps


class Renewal:
    """Renews the grants of an acquisition until it is stopped.

    `lost` is set when the server says that one is lost or recalled, when the lease was not renewed by its `stop_at`,
    or if the background thread fails. Raises OSError, RuntimeError if there can be no such thread.
    """

    def __init__(self, acquisition: LockAcquisition, lost: Event) -> None:
        self.lease = Lease(acquisition.settings.lease, min(held.asked for held in acquisition.grants))
        self._connector = acquisition.connector.beside(wait_ready)
        self._keepalive = KeepAlive(self._connector, acquisition.grants, self.lease)
        names = ", ".join(decode_text(held.name) for held in acquisition.grants)
        steps = _keep(self._keepalive, self._connector, self.lease, lost)
        self._task = background.Task(steps, lost.set, f"the renewal of the lock {names}")
        background.start(self._task)

    @property
    def loss(self) -> LockLoss | None:
        """The loss that the server has reported, None if there is none."""
        return self._keepalive.loss

    def stop(self) -> None:
        """Stop renewing: on return nothing more is sent. It may be called in any thread, and more than once."""
        background.stop(self._task)

    def abandon(self) -> None:
        """Close what a fork has copied of the connections; the lease itself is the parent's."""
        self._keepalive.close()
        self._connector.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # it may not be complete, or Python may be ending
            if not self._task.ended:
                self.stop()


def _keep(keepalive: KeepAlive, connector: ServerConnector, lease: Lease, lost: Event) -> Steps[None]:
    try:
        while keepalive.loss is None and time.monotonic() < lease.stop_at:
            yield from keepalive.steps(lease.stop_at)
        lost.set()
    finally:
        keepalive.close()
        connector.close()
