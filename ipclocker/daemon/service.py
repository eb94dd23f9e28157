"""What daemonize.py runs: a service, and what makes one."""

from __future__ import annotations

from typing import Callable, Protocol

from ..net.loop import Loop


class Service(Protocol):
    """A server that is bound and ready. From its making to its `close` it handles the three signals."""

    def describe(self) -> str:
        """For the log, as "listening on 127.0.0.1:1751"."""

    @property
    def loop(self) -> Loop:
        """In whose turns it serves."""

    def run(self) -> bool:
        """Serve until stopped; True if it is to be started anew (SIGHUP), False if it is to end."""

    def close(self) -> None:
        """Give back sockets and signal handlers. Called once, after `run`."""


ServiceFactory = Callable[[], Service]
