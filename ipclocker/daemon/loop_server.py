"""The base class of the servers on an event loop: serve until the server is told to end or to restart."""

from __future__ import annotations

import contextlib
import threading
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Callable, Optional, TypeVar

from ..errors import UsageError
from ..net.loop import Loop
from .inheritance import Inheritance

Server = TypeVar("Server", bound="LoopServer")


class LoopServer:
    """A server that works in the turns of its loop, bound and ready when it is made; daemonize.py runs such servers.

    As a context manager it is closed at the end. A subclass has a `describe`, makes this class's part as the last one
    of what has to be closed, and extends `_close` by what it has opened itself. One with sockets to hand over extends
    `hand_over`; one with a state has `state_file` and `copy_state`.
    """

    _is_open = False

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ending = False
        self._restarts = False
        self.on_hang_up: Callable[[], None] = self.restart  # what SIGHUP asks for
        self.on_status: Callable[[str], None] = lambda status: None  # called when what `describe` says has changed
        self.on_alive: Callable[[], object] = lambda: None  # called now and then in a turn that takes long
        self._serving = threading.RLock()  # held by the thread that serves or closes
        self._is_open = True

    def __enter__(self: Server) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def loop(self) -> Loop:
        """The loop in whose turns it works."""
        return self._loop

    def describe(self) -> str:
        """Describe it for the log, as "listening on 127.0.0.1:1751"."""
        raise NotImplementedError

    def start_server(self) -> None:
        """Serve until SIGTERM or SIGINT (if called in the main thread), SIGHUP, `stop` or `close`; then it is closed.

        Raises UsageError if it is closed already.
        """
        with self._serving:
            if not self._is_open:
                raise UsageError("start_server was called after the server was closed: make another one")
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
        with self._serving:
            self._loop.run()
        return self._restarts

    def stop(self) -> None:
        """Let `run` return at the end of this turn. A stop counts more than a restart. From any thread."""
        self._ending = True
        self._restarts = False
        self._loop.stop()

    def reload(self) -> None:
        """Do what SIGHUP asks for."""
        self.on_hang_up()

    def restart(self) -> None:
        """Let `run` return at the end of this turn, for a new server to be started."""
        self._restarts = not self._ending
        self._loop.stop()

    @property
    def is_stopped(self) -> bool:
        """True if it was told to end or to restart."""
        return self._ending or self._restarts

    def check(self) -> None:
        """See whether what it depends on can be used, for a trial. Raises IpclockerError."""

    def wait_until_ready(self, waiting: Callable[[str], None]) -> None:
        """Wait until it does its work; `waiting` is called with what it waits for, again and again.

        Raises IpclockerError if it never will.
        """

    @property
    def state_file(self) -> Optional[str]:
        """The file that its state is kept in; None: there is none."""
        return None

    def copy_state(self, path: str, done: Callable[[Optional[str]], None]) -> None:
        """Copy the state as it is now to another file, and call `done` in the loop: with None, or what went wrong."""
        raise NotImplementedError

    def hand_over(self) -> Inheritance:
        """Close, but for what the next server is to have."""
        self.close()
        return Inheritance()

    def close(self) -> None:
        """Close it, unless it is closed already; if another thread serves, that returns from `run` before."""
        if not self._is_open:
            return
        if not self._serving.acquire(blocking=False):
            self.stop()
            self._serving.acquire()
        try:
            if self._is_open:
                self._is_open = False
                self._close()
        finally:
            self._serving.release()

    def _close(self) -> None:
        """Close the loop and restore the signal handlers; a server closes what else it has before."""
        self._loop.close()


ServerFactory = Callable[[Inheritance], LoopServer]
