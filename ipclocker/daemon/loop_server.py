"""The base class of the servers on an event loop: serve until the server is told to end or to restart."""

from __future__ import annotations

import contextlib
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Callable

from ..net.loop import Loop


class LoopServer:
    """A server that works in the turns of its loop, bound and ready when it is made; daemonize.py runs such servers.

    A subclass has a `describe`, and extends `close` by what it has opened itself.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ending = False
        self._restarts = False

    @property
    def loop(self) -> Loop:
        """The loop in whose turns it works."""
        return self._loop

    def describe(self) -> str:
        """Describe it for the log, as "listening on 127.0.0.1:1751"."""
        raise NotImplementedError

    def start_server(self) -> None:
        """Serve until SIGTERM or SIGINT (if called in the main thread), SIGHUP or `stop`."""
        try:
            with contextlib.suppress(ValueError):  # another thread than the main one has no signals
                self.handle_signals()
            self.run()
        finally:
            self.close()

    def handle_signals(self) -> None:
        """Let SIGTERM and SIGINT end the server, and SIGHUP restart it, from now on. In the main thread only."""
        self._loop.on_signal(SIGTERM, self.stop)
        self._loop.on_signal(SIGINT, self.stop)
        self._loop.on_signal(SIGHUP, self.reload)

    def run(self) -> bool:
        """Serve until stopped; return True if a new server is to be started (SIGHUP), False if it is to end."""
        self._loop.run()
        return self._restarts

    def stop(self) -> None:
        """Let `run` return at the end of this turn. A stop counts more than a restart. From any thread."""
        self._ending = True
        self._restarts = False
        self._loop.stop()

    def reload(self) -> None:
        """Let `run` return at the end of this turn, for a new server to be started: SIGHUP."""
        self._restarts = not self._ending
        self._loop.stop()

    def close(self) -> None:
        """Close the loop and restore the signal handlers; a server closes what else it has before."""
        self._loop.close()


ServerFactory = Callable[[], LoopServer]
