"""Notifying the service manager that started this process: that it serves, that it ends, that it is alive.

The protocol is systemd's (sd_notify(3), sd_watchdog_enabled(3)): a datagram of NAME=VALUE lines to the UNIX socket
that NOTIFY_SOCKET names. Without that variable nothing is sent.

Signs of life are sent in the turns of the server's own loop and nowhere else, twice in the time that WATCHDOG_USEC
gives. So a loop that hangs sends none, and the manager ends the server and starts another.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from functools import partial

from ..net.loop import Loop
from ..net.socket_activation import SOCKET_VARIABLES
from .log import one_line

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_PATIENCE = 1  # seconds to wait for a manager that does not read, with a message that it must have
_SHORTEST = 0.01  # seconds between two signs of life at least, so that a tiny WATCHDOG_USEC does not busy the loop


class SystemdNotifier:
    """Sends messages to the service manager of this process; a message that can't be sent raises nothing."""

    def __init__(self, place: str = "", alive_within: float | None = None) -> None:
        """Prepare for the manager's socket `place`, which has "@" before an abstract name; "" stands for no manager.

        After `alive_within` seconds without a sign of life the manager takes the server to hang; None: it does not.
        """
        self._socket: socket.socket | None = None
        self._pause: float | None = None
        if place:
            # Kept open, since there may be no descriptor left when a message has to be sent; not connected, since the
            # manager may restart.
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _PATIENCE, 0))
            self._place = os.fsencode("\0" + place[1:] if place.startswith("@") else place)
            self._pause = None if alive_within is None else max(alive_within / 2, _SHORTEST)

    def ready(self, status: str) -> None:
        """Say that the service serves; `status` is one line for people."""
        self._send("READY=1", f"STATUS={one_line(status)}")

    def waiting(self, what: str) -> None:
        """Say what the service waits for before it serves: the manager is to wait as well, for a minute from now on."""
        self._send(f"STATUS={one_line(what)}", "EXTEND_TIMEOUT_USEC=60000000")

    def status(self, status: str) -> None:
        """Say in one line, for people, what the service does from now on."""
        self._send(f"STATUS={one_line(status)}")

    def reloading(self) -> None:
        """Say that the service does not serve for a moment, until it is ready again."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def failed(self, why: str) -> None:
        """Say that the service ends since it can't serve."""
        self._send(f"STATUS={one_line(why)}")

    def handed_over(self, pid: int) -> None:
        """Say that this process ends, and that the process `pid`, which it has started, is the service from now on."""
        self._send("READY=1", f"MAINPID={pid}")

    def keep_alive(self, loop: Loop) -> None:
        """Send signs of life in the loop's turns from now on, as often as the manager wants them."""
        if self._pause is not None:
            pause = self._pause if self.alive() else self._pause / 8  # some tries are left before it is too late
            loop.call_at(loop.now + pause, partial(self.keep_alive, loop))

    def alive(self) -> bool:
        """Send one sign of life, from within a turn that takes long, if the manager wants them; True if it was sent."""
        return self._pause is not None and self._send("WATCHDOG=1", flags=socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Close the socket; nothing more is sent."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, *lines: str, flags: int = 0) -> bool:
        if self._socket is None:
            return False
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # each one would begin the wait again
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "backslashreplace"), flags, self._place)
        except OSError:
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return True


def private_variables() -> dict[str, str]:
    """Return what `take_notifier` takes from the environment, for this process to find there when it starts again."""
    found = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if found.pop("WATCHDOG_PID", "") not in ("", str(os.getpid())):
        found.pop("WATCHDOG_USEC", None)
    return found


def take_notifier() -> SystemdNotifier:
    """Take the manager to notify from the environment, and remove it there.

    Call it once and early, so that no program that this process starts speaks to the manager.
    """
    place, period, pid = (os.environ.pop(name, "") for name in _VARIABLES)
    if not place.startswith(("/", "@")):
        return SystemdNotifier()
    is_number = period.isascii() and period.isdigit() and len(period) < 19
    alive_within = int(period) / 1e6 if is_number and pid in ("", str(os.getpid())) else 0.0
    try:
        return SystemdNotifier(place, alive_within or None)
    except OSError:  # the system has no such sockets
        return SystemdNotifier()


def for_programs(environment: dict[str, str]) -> dict[str, str]:
    """Copy an environment for programs that this process starts, without the variables that are for it alone."""
    private = {*_VARIABLES, *SOCKET_VARIABLES}
    return {name: value for name, value in environment.items() if name not in private}
