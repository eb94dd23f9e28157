"""What every server on an event loop does alike: serve, until it is told to end or to be started anew."""

from __future__ import annotations

import contextlib
from signal import SIGHUP, SIGINT, SIGTERM

from ..net.loop import Loop


class LoopServer:
    """A server that lives in the turns of its loop. `close` gives back all that it has taken."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ending = False
        self._anew = False

    @property
    def loop(self) -> Loop:
        """The loop in whose turns it lives."""
        return self._loop

    def start_server(self) -> None:
        """Serve until SIGTERM or SIGINT (if called in the main thread), SIGHUP or `stop`."""
        try:
            with contextlib.suppress(ValueError):  # another thread than the main one has no signals
                self.handle_signals()
            self.run()
        finally:
            self.close()

    def handle_signals(self) -> None:
        """From now on SIGTERM and SIGINT end the server, and SIGHUP asks for a new one. In the main thread only."""
        self._loop.on_signal(SIGTERM, self.stop)
        self._loop.on_signal(SIGINT, self.stop)
        self._loop.on_signal(SIGHUP, self._start_anew)

    def run(self) -> bool:
        """Serve; True if a new server is to be started (SIGHUP), False if it is to end."""
        self._loop.run()
        return self._anew

    def stop(self) -> None:
        """Return from `run` at the end of this turn; to end goes before to start anew. From any thread."""
        self._ending = True
        self._anew = False
        self._loop.stop()

    def close(self) -> None:
        """Give back the loop; what else there is, a server gives back before."""
        self._loop.close()

    def _start_anew(self) -> None:
        self._anew = not self._ending
        self._loop.stop()
