"""Watches one process of another host, by asking the pid server there again and again.

The process is known only by its number. It is gone when an answer says so. "Unknown" and silence prove nothing: they
are reported once, silence when it has lasted a while. Silence counts as the end of the process only for a caller who
says after how long. (A process of this host is watched by the kernel: process/exit_watcher.py.)
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from math import inf
from typing import Callable, NamedTuple, Optional

from ..net.address import own_host_name
from ..net.loop import Loop
from ..net.resolver import Resolver
from ..pid.async_client import AsyncPidClient
from ..pid.protocol import PidAnswer
from ..process.identity import ProcessIdentity

_PATIENCE = 5.0  # seconds of silence that are not worth a message: a server may be starting
_ANSWER_WITHIN = 5.0  # seconds; a late answer is as true as any other
_QUESTIONS_BEFORE_DOWN = 5  # so many datagrams are hardly lost one after another by chance
_LOOK_UP_PAUSE = 0.02  # seconds between two looks at whether the host's name is looked up by now


class WatchTarget(NamedTuple):
    """The process to watch, by its number on its host.

    If a `port` is set, the pid server at that UDP port of the host is asked; else the kernel of this host is. For a
    server: `interval` is the longest time between two questions, `down_after` the time without an answer after which
    the process counts as gone; None: it never does. Seconds.
    """

    pid: int
    host: str = "localhost"
    port: int = 0
    interval: float = 0.5
    down_after: Optional[float] = None


class MonitorListener:
    """The receiver of a monitor's messages; this one drops them."""

    def report(self, text: str) -> None:
        """Take a message that the user should see."""

    def trace(self, text: str) -> None:
        """Take a message that is of use only to find a fault."""


def is_this_host(name: str) -> bool:
    """Tell if a name surely means the host that this process runs on: that host's name, or a loopback address."""
    return name in ("localhost", "::1", own_host_name()) or (name.startswith("127.") and _is_address(name))


class RemoteProcessMonitor:
    """Watches a process of another host, and calls `gone` once, in a turn of the loop, when it is gone."""

    def __init__(self, loop: Loop, target: WatchTarget, gone: Callable[[], None], listener: MonitorListener) -> None:
        self._loop = loop
        self._target = target
        self._gone = gone
        self._listener = listener
        self._pid_client = AsyncPidClient(loop, target.port)
        self._addresses = [target.host] if _is_address(target.host) else []
        self._resolver = None if self._addresses else Resolver(loop)
        # Short enough that no single datagram, if it is lost, makes the process count as gone.
        self._interval = min(target.interval, (target.down_after or inf) / _QUESTIONS_BEFORE_DOWN)
        self._answering = ""  # the address that has answered last
        self._silence = 0.0  # seconds for which was asked and nothing answered
        self._reported: set[str] = set()
        self._ask()

    def close(self) -> None:
        """Ask nothing more, and call nobody."""
        self._timer.cancel()
        self._pid_client.close()
        if self._resolver is not None:
            self._resolver.close()

    def _ask(self) -> None:
        down_after = self._target.down_after
        if down_after is not None and self._silence >= down_after:
            self._listener.report(
                f"{self._why_silent()}, for {down_after:g} s: process {self._target.pid} counts as gone"
            )
            self._end()
            return
        if self._silence >= _PATIENCE:
            self._report_once(f"{self._why_silent()}: whether process {self._target.pid} is there can't be seen")
        for address in self._where_to_ask():
            self._pid_client.ask(
                address, ProcessIdentity(self._target.pid), partial(self._answered, address), _ANSWER_WITHIN
            )
        looking_up = not self._addresses and self._silence < 1.0
        pause = min(self._interval, _LOOK_UP_PAUSE) if looking_up else self._interval
        # Added up, not read from the clock: if this process was stopped for a while, nobody was silent.
        self._silence += pause
        self._timer = self._loop.call_at(self._loop.now + pause, self._ask)

    def _where_to_ask(self) -> list[str]:
        """Return the address that answers, or all while none does."""
        if self._answering and self._silence <= 2 * self._interval:
            return [self._answering]
        if self._resolver is not None:
            found = filter(self._can_be, self._resolver.addresses(self._target.host))
            self._addresses = list(found) or self._addresses
        return self._addresses

    def _can_be(self, address: str) -> bool:
        """Tell if an address can be the host's: the loopback is this host's, whatever other name a file gives it."""
        host = self._target.host
        is_ours = is_this_host(host) or host.partition(".")[0] == own_host_name().partition(".")[0]
        return is_ours or not (address.startswith("127.") or address == "::1")

    def _answered(self, address: str, answer: PidAnswer | None) -> None:
        if answer is None:
            return
        self._listener.trace(f"{address} answers: {answer.exists}")
        self._answering = address
        self._silence = 0.0
        if answer.exists is False:
            self._end()
        elif answer.exists is None:
            self._report_once(f"{self._target.host} does not know whether process {answer.pid} is there")

    def _end(self) -> None:
        self.close()
        self._gone()

    def _why_silent(self) -> str:
        if not self._addresses:
            return f"the host '{self._target.host}' is not known here"
        return f"no pid server answers at {self._target.host}, port {self._target.port}"

    def _report_once(self, text: str) -> None:
        if text not in self._reported:
            self._reported.add(text)
            self._listener.report(text)


def _is_address(host: str) -> bool:
    with contextlib.suppress(OSError, UnicodeError):
        return bool(socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST))
    return False
