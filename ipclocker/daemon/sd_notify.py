"""What the service manager that started this process is told: that it serves, that it ends, that it is alive.

The protocol is systemd's (sd_notify(3), sd_watchdog_enabled(3)): a datagram of NAME=VALUE lines to the UNIX socket
that NOTIFY_SOCKET names. Without that variable there is nobody to be told, and nothing is done.

That a server is alive is said in the turns of its own loop and by nothing else, twice in the time that WATCHDOG_USEC
gives it. So a loop that hangs falls silent, and the manager ends the server and starts another.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from functools import partial
from typing import Callable

from ..net.loop import Loop
from ..net.socket_activation import SOCKET_VARIABLES
from .log import one_line
from .service import Service, ServiceFactory

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_PATIENCE = 1  # seconds for a manager that does not read, when there is news that it must have
_SHORTEST = 0.01  # seconds between two signs of life, whatever was asked for


class SystemdNotifier:
    """The service manager of this process. That it can't be told is no reason to serve worse: nothing is raised."""

    def __init__(self, place: str, alive_within: float | None = None) -> None:
        """`place` is the name of its socket, with "@" before an abstract one; `alive_within` the seconds, if there are
        any, after which a server that has not said that it is alive is taken to hang.
        """
        # Kept open, since there may be no descriptor left when something has to be said; not connected, since the
        # manager may start anew.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _PATIENCE, 0))
        self._place = os.fsencode("\0" + place[1:] if place.startswith("@") else place)
        self._pause = None if alive_within is None else max(alive_within / 2, _SHORTEST)

    def ready(self, status: str) -> None:
        """It serves; `status` is one line for people."""
        self._tell("READY=1", f"STATUS={one_line(status)}")

    def reloading(self) -> None:
        """It does not serve for a moment, until it is ready again."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It ends."""
        self._tell("STOPPING=1")

    def failed(self, why: str) -> None:
        """It ends since it can't serve."""
        self._tell(f"STATUS={one_line(why)}")

    def handed_over(self, pid: int) -> None:
        """This process ends, and another one, which it has started and which serves, is the service from now on."""
        self._tell("READY=1", f"MAINPID={pid}")

    def keep_alive(self, loop: Loop) -> None:
        """From now on say in the loop's turns that it is alive, as often as the manager wants to hear it."""
        if self._pause is not None:
            heard = self._send("WATCHDOG=1", socket.MSG_DONTWAIT)
            pause = self._pause if heard else self._pause / 8
            loop.call_at(loop.now + pause, partial(self.keep_alive, loop))

    def close(self) -> None:
        """There is nothing more to say."""
        self._socket.close()

    def _tell(self, *lines: str) -> None:
        self._send("\n".join(lines), 0)

    def _send(self, text: str, flags: int) -> bool:
        try:
            self._socket.sendto(text.encode("utf-8", "backslashreplace"), flags, self._place)
        except OSError:
            return False
        return True


def take_manager() -> SystemdNotifier | None:
    """Who is to be told about this process, if anybody is. To be asked once and early: the environment is rid of it."""
    place, period, pid = (os.environ.pop(name, "") for name in _VARIABLES)
    if not place.startswith(("/", "@")):
        return None
    is_number = period.isascii() and period.isdigit() and len(period) < 19
    alive_within = int(period) / 1e6 if is_number and pid in ("", str(os.getpid())) else 0.0
    try:
        return SystemdNotifier(place, alive_within or None)
    except OSError:  # the system has no such sockets
        return None


def for_programs(environment: dict[str, str]) -> dict[str, str]:
    """An environment for programs that this process starts: without what its manager has said to it alone."""
    private = {*_VARIABLES, *SOCKET_VARIABLES}
    return {name: value for name, value in environment.items() if name not in private}


def announced(start: ServiceFactory, manager: SystemdNotifier) -> ServiceFactory:
    """The same server, whose manager is told how it is."""
    return lambda: _Announced(start(), manager)


class _Announced:
    def __init__(self, service: Service, manager: SystemdNotifier) -> None:
        self._service = service
        self._manager = manager
        self.describe: Callable[[], str] = service.describe
        self.close: Callable[[], None] = service.close

    @property
    def loop(self) -> Loop:
        return self._service.loop

    def run(self) -> bool:
        self._manager.ready(self.describe())
        self._manager.keep_alive(self.loop)
        anew = False
        try:
            anew = self._service.run()
        finally:
            if anew:
                self._manager.reloading()
            else:
                self._manager.stopping()
        return anew
