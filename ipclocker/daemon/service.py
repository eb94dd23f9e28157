"""The interface between daemonize.py and the servers that it runs: a service, and the function that makes one."""

from __future__ import annotations

from typing import Callable, Protocol

from ..net.loop import Loop


class Service(Protocol):
    """A server that is bound and ready. From its making to its `close` it handles SIGTERM, SIGINT and SIGHUP."""

    def describe(self) -> str:
        """Describe it for the log, as "listening on 127.0.0.1:1751"."""

    @property
    def loop(self) -> Loop:
        """The loop in whose turns it serves."""

    def run(self) -> bool:
        """Serve until stopped; return True if it is to be restarted (SIGHUP), False if it is to end."""

    def close(self) -> None:
        """Close the sockets and restore the signal handlers. Called once, after `run`."""


ServiceFactory = Callable[[], Service]
