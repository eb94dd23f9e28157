"""Monitor of the processes that hold locks: it reports one that is gone, and only when a kernel says that it is gone.

A process of this server's own kernel is watched by the kernel (process/exit_watcher.py). About any other the pid
server of its host is asked, in rounds: at the address that the lock came from; if that stays silent, at the addresses
of the host's name in turn with it. An answer counts if it says "gone". "Unknown" and silence say nothing.

A lockersh that sees its command end gives the lock back itself, and at once. So a process that is gone is reported
a moment later, unless its client is gone, too.

A lease that has run out is another matter: there, silence ends the lock (table.py), so it is looked for at once and
three times.
"""

from __future__ import annotations

import os
import socket
from typing import Callable

from ...net.loop import Loop
from ...net.resolver import Resolver
from ...pid.async_client import AsyncPidClient
from ...pid.protocol import PidAnswer
from ...process.exit_watcher import ExitWatcher, Subscription
from ...process.identity import ProcessIdentity, exists, is_own, own_boot
from ..model import HolderProcess
from .poll_schedule import PollSchedule

GRACE = 0.1  # seconds: a lockersh whose command has ended gives the lock back itself, within milliseconds
_LOOKS = 3  # questions, a second each, since a datagram may be lost; then silence counts as "nobody can tell"


class HolderMonitor:
    """Calls `gone` with a process once it is known to be gone. All in turns of the loop."""

    def __init__(self, loop: Loop, pid_port: int, gone: Callable[[HolderProcess], None]) -> None:
        self._loop = loop
        self._gone = gone
        self._watch = ExitWatcher(loop)
        self._pid_client = AsyncPidClient(loop, pid_port)
        self._resolver = Resolver(loop)
        self._schedule = PollSchedule()
        self._locks: dict[HolderProcess, int] = {}  # how many depend on each
        self._own: dict[HolderProcess, Subscription] = {}
        self._abandoned: set[HolderProcess] = set()  # the client that asked in their name has hung up
        self._ended: set[HolderProcess] = set()  # gone, and not reported yet
        self._silences: dict[
            HolderProcess, int
        ] = {}  # questions without an answer; each one moves on to the next address

    def watch(self, process: HolderProcess) -> None:
        """Watch a process from now on: a lock depends on it."""
        self._locks[process] = self._locks.get(process, 0) + 1
        if self._locks[process] > 1:
            return
        identity = _identity(process)
        if _was_of_this_host(process):
            self._end(process)
        elif is_own(identity, os.fsdecode(process.host)) and (process.boot or _is_own_address(process.address)):
            self._own[process] = self._watch.add(identity, lambda: self._end(process))
        else:
            self._schedule.add(process, self._loop.now)

    def unwatch(self, process: HolderProcess) -> None:
        """Watch a process no longer for one of the locks that depended on it."""
        self._locks[process] -= 1
        if not self._locks[process]:
            del self._locks[process]
            self._abandoned.discard(process)
            self._ended.discard(process)
            self._silences.pop(process, None)
            self._schedule.remove(process)
            watched = self._own.pop(process, None)
            if watched is not None:
                self._watch.remove(watched)

    def check_soon(self, process: HolderProcess) -> None:
        """Check a process as soon as the budget allows: its client is gone, or somebody says that it is gone itself."""
        if process in self._locks:
            self._abandoned.add(process)
            self._schedule.check_soon(process)
            self._report(process)

    def report_again(self) -> None:
        """Report those again that are gone: what was reported could perhaps not be written, and now it can."""
        for process in list(self._ended):
            self._report(process)

    def check_now(self, process: HolderProcess, seen: Callable[[bool | None], None]) -> None:
        """Check now whether a process lives; `seen` is called once, with True, False, or None if nobody can tell."""
        if process in self._own:
            identity = _identity(process)
            seen(exists(identity.pid, identity.start))
        else:
            self._look_again(process, seen, _LOOKS)

    def _look_again(self, process: HolderProcess, seen: Callable[[bool | None], None], looks_left: int) -> None:
        def answered(answer: PidAnswer | None) -> None:
            if answer is not None and answer.exists is not None:
                seen(answer.exists)
            else:
                self._silences[process] = self._silences.get(process, 0) + 1
                self._look_again(process, seen, looks_left - 1)

        addresses = self._addresses(process) if looks_left and process in self._locks else []
        if not addresses:
            # Not in this turn, as with an answer: the caller need not expect it before its call returns.
            self._loop.call_at(self._loop.now, lambda: seen(None))
            return
        address = addresses[self._silences.get(process, 0) % len(addresses)]
        self._pid_client.ask(address, _identity(process), answered)

    def tick(self, now: float) -> float:
        """Ask about the processes that are due; return when the next one is (seconds, monotonic)."""
        while True:
            process = self._schedule.due(now)
            if process is None:
                return self._schedule.next_due
            self._ask(process)

    def close(self) -> None:
        """Stop watching, and give back the descriptors."""
        self._watch.close()
        self._pid_client.close()
        self._resolver.close()

    def _ask(self, process: HolderProcess) -> None:
        addresses = self._addresses(process)
        if addresses:
            address = addresses[self._silences.get(process, 0) % len(addresses)]
            self._pid_client.ask(address, _identity(process), lambda answer: self._answered(process, answer))

    def _addresses(self, process: HolderProcess) -> list[str]:
        """List the addresses to ask at: the host's name is looked up only when its address has been silent once."""
        addresses = [process.address] if process.address else []
        if not addresses or self._silences.get(process, 0):
            for address in self._resolver.addresses(os.fsdecode(process.host)):
                # A name that means another host here than there must not lead to this one.
                if address not in addresses and (not _is_loopback(address) or _is_loopback(process.address)):
                    addresses.append(address)
        return addresses

    def _answered(self, process: HolderProcess, answer: PidAnswer | None) -> None:
        if process not in self._locks:
            return
        if answer is None:
            self._silences[process] = self._silences.get(process, 0) + 1
        elif answer.exists is False:
            self._end(process)

    def _end(self, process: HolderProcess) -> None:
        if process in self._locks and process not in self._ended:
            self._ended.add(process)
            if process in self._abandoned:
                self._report(process)
            else:
                self._loop.call_at(self._loop.now + GRACE, lambda: self._report(process))

    def _report(self, process: HolderProcess) -> None:
        if process in self._ended:
            self._gone(process)


def _identity(process: HolderProcess) -> ProcessIdentity:
    return ProcessIdentity(process.pid, process.start, os.fsdecode(process.boot), process.pidns)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "")


def _was_of_this_host(process: HolderProcess) -> bool:
    """Tell whether a process asked from this very host before that was started last; such a process is gone."""
    return bool(process.boot) and _is_loopback(process.address) and os.fsdecode(process.boot) != own_boot()


def _is_own_address(address: str) -> bool:
    """Tell whether an address is one of this host: then a socket can be bound to it. A UNIX socket has none."""
    if not address:
        return True
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True
