"""Sends a signal to one process, and never to another one that has the same number later."""

from __future__ import annotations

import contextlib
import os
import signal

from .identity import ProcessIdentity, exists, open_pidfd


def send_signal(process: ProcessIdentity, number: int) -> None:
    """Send a signal to this very process, if it is still there. Raises PermissionError for another user's."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = open_pidfd(process.pid)
        try:
            # After the descriptor was had: that stays with its process, the number may be another's by now.
            if exists(process.pid, process.start) is not False:
                _send(process.pid, descriptor, number)
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _send(pid: int, descriptor: int | None, number: int) -> None:
    if descriptor is not None:
        with contextlib.suppress(OSError):  # a container's rules may allow one call without the other
            signal.pidfd_send_signal(descriptor, number)
            return
    os.kill(pid, number)
