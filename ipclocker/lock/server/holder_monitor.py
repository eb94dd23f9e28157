"""Monitor of the processes that hold locks: it reports one that is gone, and only when a kernel says that it is gone.

A process that this server's own kernel shows it is watched by the kernel (process/exit_watcher.py). About any other a
pid server is asked, in rounds: at the address that the lock came from; if that does not know, at the addresses of the
host's name in turn with it. For one of another pid namespace of this kernel the pid server of this host is asked
besides. An answer counts if it says "gone". "Unknown" and silence say nothing. process/relation.py has who may say
"gone"; for that a question says for how long the process's kernel has not been heard of.

A lockersh that sees its command end gives the lock back itself, and at once. So a process that is gone is reported
a moment later, unless its client is gone, too.

A lease that has run out is another matter: there, silence ends the lock (table.py), so it is looked for at once and
three times.
"""

from __future__ import annotations

from typing import Callable, Protocol

from ...net.address import own_host_name
from ...net.loop import Loop
from ...net.resolver import Resolver
from ...net.text import decode_text
from ...pid.async_client import AsyncPidClient
from ...pid.protocol import PidAnswer
from ...process.exit_watcher import ExitWatcher, Subscription
from ...process.identity import ProcessIdentity, exists
from ...process.relation import GONE, HERE, comparable_start, relation
from ...process.viewpoint import own_view
from ..model import HolderProcess
from .client_place import host_of, is_loopback, is_own_address, own_place
from .poll_schedule import PollSchedule

GRACE = 0.1  # seconds: a lockersh whose command has ended gives the lock back itself, within milliseconds
_LOOPBACK = "127.0.0.1"
_LOOKS = 3  # questions, a second each, since a datagram may be lost; then silence counts as "nobody can tell"


class Connection(Protocol):
    """Connection of a client that holds locks."""

    def last_heard(self) -> float:
        """Return when the client's host was last heard of (seconds, monotonic)."""


class HolderMonitor:
    """Calls `gone` with a process once it is known to be gone. All in turns of the loop."""

    def __init__(self, loop: Loop, pid_port: int, gone: Callable[[HolderProcess], None]) -> None:
        self._loop = loop
        self._gone = gone
        self._watch = ExitWatcher(loop)
        self._pid_client = AsyncPidClient(loop, pid_port)
        self._resolver = Resolver(loop)
        self._schedule = PollSchedule()
        self._view = own_view()
        self._place = own_place()
        self._locks: dict[HolderProcess, int] = {}  # how many depend on each
        self._own: dict[HolderProcess, Subscription] = {}
        self._abandoned: set[HolderProcess] = set()  # the client that asked in their name has hung up
        self._ended: set[HolderProcess] = set()  # gone, and not reported yet
        self._silences: dict[
            HolderProcess, int
        ] = {}  # questions that nobody could answer; each one moves on to the next address
        self._heard: dict[HolderProcess, float] = {}  # when it was heard of, but for its open connections
        self._connections: dict[HolderProcess, tuple[Connection, ...]] = {}  # of clients that hold locks for it

    def watch(self, process: HolderProcess, heard: float) -> None:
        """Watch a process from now on: a lock depends on it; `heard` as for `note_heard`."""
        self._locks[process] = self._locks.get(process, 0) + 1
        self.note_heard(process, heard)
        if self._locks[process] > 1 and process not in self._ended:
            return
        # One that has ended is looked at again: with its number alone it may be another one by now, and if not, this
        # lock has to be reported, too.
        self._ended.discard(process)
        if self._is_seen_here(process):
            self._own[process] = self._watch.add(self._own_identity(process), lambda: self._end(process))
        elif not self._was_rebooted(process):
            self._schedule.add(process, self._loop.now)

    def unwatch(self, process: HolderProcess) -> None:
        """Watch a process no longer for one of the locks that depended on it."""
        self._locks[process] -= 1
        if not self._locks[process]:
            del self._locks[process]
            self._abandoned.discard(process)
            self._ended.discard(process)
            self._silences.pop(process, None)
            self._heard.pop(process, None)
            self._schedule.remove(process)
            watched = self._own.pop(process, None)
            if watched is not None:
                self._watch.remove(watched)

    def note_heard(self, process: HolderProcess, when: float) -> None:
        """Note that the host of a process was heard of at a time (seconds, monotonic)."""
        if process in self._locks:
            self._heard[process] = max(when, self._heard.get(process, when))

    def silent_since(self, process: HolderProcess) -> float | None:
        """Return when a process of another host was last heard of, if no connection is left to hear of it."""
        if process in self._schedule and process not in self._connections:
            return self._heard[process]
        return None

    def attach(self, process: HolderProcess, connection: Connection) -> None:
        """Take this connection for one over which the host of a process can be heard, until `detach`."""
        self._connections[process] = (*self._connections.get(process, ()), connection)

    def detach(self, process: HolderProcess, connection: Connection) -> None:
        """Count on this connection no more."""
        others = tuple(other for other in self._connections[process] if other is not connection)
        if others:
            self._connections[process] = others
        else:
            del self._connections[process]

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
            identity = self._own_identity(process)
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
        if addresses and self._is_of_this_kernel(process):
            addresses.append(_LOOPBACK)
        if not addresses:
            # Not in this turn, as with an answer: the caller need not expect it before its call returns.
            self._loop.call_at(self._loop.now, lambda: seen(None))
            return
        address = addresses[self._silences.get(process, 0) % len(addresses)]
        self._pid_client.ask(address, _identity(process), answered, silent=self._silence(process))

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
        if self._was_rebooted(process):
            return
        identity, silence = _identity(process), self._silence(process)
        addresses = self._addresses(process)
        if addresses:
            address = addresses[self._silences.get(process, 0) % len(addresses)]
            self._pid_client.ask(address, identity, lambda answer: self._answered(process, answer), silent=silence)
        if self._is_of_this_kernel(process):
            self._pid_client.ask(
                _LOOPBACK, identity, lambda answer: self._answered_here(process, answer), silent=silence
            )

    def _addresses(self, process: HolderProcess) -> list[str]:
        """List the addresses to ask at: the host's name is looked up only when its address did not know once."""
        place, names = process.address, [decode_text(process.host)]
        host = host_of(place)
        if host is None:
            addresses = [place] if place else []
        elif place == self._place:
            addresses = [_LOOPBACK]
        else:  # it was on the host of the server before
            addresses = []
            names.insert(0, host)
        if not addresses or self._silences.get(process, 0):
            for name in dict.fromkeys(names):
                for address in self._resolver.addresses(name):
                    # A name that means another host here than there must not lead to this one.
                    if address not in addresses and (not is_loopback(address) or self._is_here(place)):
                        addresses.append(address)
        return addresses

    def _is_here(self, place: str) -> bool:
        return place == self._place if host_of(place) is not None else is_loopback(place)

    def _answered(self, process: HolderProcess, answer: PidAnswer | None) -> None:
        if process not in self._locks:
            return
        if answer is None or answer.exists is None:
            self._silences[process] = self._silences.get(process, 0) + 1
        elif answer.exists is False:
            self._end(process)

    def _answered_here(self, process: HolderProcess, answer: PidAnswer | None) -> None:
        if process in self._locks and answer is not None and answer.exists is False:
            self._end(process)

    def _is_of_this_kernel(self, process: HolderProcess) -> bool:
        return process.boot != b"" and decode_text(process.boot) == self._view.boot

    def _is_seen_here(self, process: HolderProcess) -> bool:
        """Tell whether this server can see the process itself.

        A classic client tells neither boot nor namespace: its process is of this host if its host's name and its
        address are, as long as this server sees the whole host. (A host without a name calls itself localhost.)
        """
        if process.boot:
            return relation(_identity(process), self._view) == HERE
        is_of_this_host = decode_text(process.host) == own_host_name() and process.pidns is None
        return is_of_this_host and self._view.sees_whole_host and self._is_own(process.address)

    def _is_own(self, place: str) -> bool:
        return place == self._place if host_of(place) is not None else is_own_address(place)

    def _own_identity(self, process: HolderProcess) -> ProcessIdentity:
        identity = _identity(process)
        return ProcessIdentity(process.pid, comparable_start(identity, self._view))

    def _was_rebooted(self, process: HolderProcess) -> bool:
        """Tell whether this server's own host was booted again since, and the process is gone by that; then note it."""
        gone = relation(_identity(process), self._view, self._silence(process)) == GONE
        if gone:
            self._end(process)
        return gone

    def _silence(self, process: HolderProcess) -> float:
        """Return for how long the process's host has not been heard of (seconds)."""
        heard = [connection.last_heard() for connection in self._connections.get(process, ())]
        return max(0.0, self._loop.now - max([self._heard[process], *heard]))

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
    names = map(decode_text, (process.machine, process.host))
    return ProcessIdentity(process.pid, process.start, decode_text(process.boot), process.pidns, process.timens, *names)
