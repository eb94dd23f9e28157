"""The parameters of a Locker, with the names and defaults of IPC::Locker, and their check."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable, TypedDict, Union

from ...errors import UsageError
from ...net.address import Address, find_addresses, own_host_name, socket_path, split_hosts
from ..endpoint import endpoint
from ..wire.requests import MAX_NAMES

if TYPE_CHECKING:
    from typing import Unpack

Message = Callable[..., object]
SHORTEST_LEASE = 3.0  # seconds; of a shorter one there would be no time to end what it protects (lease.py)


class LockerParameters(TypedDict, total=False):
    """The parameters that a Locker takes.

    host: the lock server's host, or several, as a list or separated by colons, of which the first that answers
        is taken; default: the environment's IPCLOCKER_HOST, else localhost
    port: number, service name, or name of a UNIX socket; default: IPCLOCKER_PORT, the service `lockerd`, 1751
    family: "INET" or "UNIX"
    path: the name of a UNIX socket; goes before host and port
    lock: the name of the lock, or several, of which the first that is free is taken; default: lock
    all: whether all of them are taken, together, instead; default: False
    timeout: seconds that the lock may be held before the server takes it away; 0: for ever; default: 1800
    lease: hold the lock for so many seconds at a time (3 at least), and renew that; in place of timeout; default: 0, no
    block: whether `lock()` waits; default: True
    pid, hostname: the process that the lock belongs to; default: this one
    user: the name that the lock is held under; default: HOST_PID_USER
    autounlock: whether the server frees the lock when that process is gone; default: False
    destroy_unlock: whether a Locker that goes away unlocks; default: True
    connect_tries, connect_delay: how often to try the hosts in turn, with pauses of one to two times the delay
        (seconds) between; default: 3 and 30
    verbose: whether those of the following that are not given print a message on stderr; default: False
    command: what runs under the lock, for people to read; default: None
    print_waiting(locker, name), print_obtained(locker), print_broke(locker): called when that happens
    print_retry(locker): no server answers, and it is about to be tried again; prints by default
    print_down(locker): no server answers, and no more tries are left; by default ServerUnavailable is raised
    """

    host: Union[str, Iterable[str], None]
    port: Union[str, int, None]
    family: str
    path: Union[str, None]
    lock: Union[str, Iterable[str]]
    all: bool
    timeout: float
    lease: float
    command: Union[str, None]
    block: bool
    pid: Union[int, None]
    user: Union[str, None]
    hostname: Union[str, None]
    autounlock: bool
    destroy_unlock: bool
    connect_tries: int
    connect_delay: float
    verbose: bool
    print_broke: Union[Message, None]
    print_down: Union[Message, None]
    print_obtained: Union[Message, None]
    print_retry: Union[Message, None]
    print_waiting: Union[Message, None]


_DEFAULTS: LockerParameters = {  # None for all others
    **dict.fromkeys(LockerParameters.__annotations__),  # type: ignore[typeddict-item]
    "family": "INET",
    "lock": "lock",
    "all": False,
    "timeout": 1800,
    "lease": 0,
    "block": True,
    "autounlock": False,
    "destroy_unlock": True,
    "connect_tries": 3,
    "connect_delay": 30,
    "verbose": False,
}


class LockSettings:
    """Checked parameters, each an attribute of the same name; `names`, `hosts` and `groups` are made from them."""

    def __init__(self, **given: Unpack[LockerParameters]) -> None:
        """Check them. Raises UsageError for a value that means nothing, TypeError for an unknown parameter."""
        unknown = given.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(f"a Locker has no parameter '{min(unknown)}'")
        for name in ("lock", "host"):
            several = given.get(name)
            if several is not None and not isinstance(several, str):
                given[name] = tuple(several)  # type: ignore[arg-type]
        self._given = given
        chosen: LockerParameters = {**_DEFAULTS, **given}
        self.names = lock_names(chosen["lock"])
        self.hosts = host_names(chosen["host"])
        self.endpoint = endpoint(chosen["port"], chosen["family"], chosen["path"])
        # What is asked for one after the other. Names that are wanted together are asked for in one order, which is the
        # same for all clients, so that no two hold a part each and wait for the other's.
        self.all = bool(chosen["all"])
        self.groups: list[tuple[bytes, ...]] = [self.names]
        if self.all:
            self.groups = [(name,) for name in sorted(set(self.names))]
        self.lease = _lease_seconds(chosen["lease"], given.get("timeout"))
        self.hold = self.lease or _seconds("timeout", chosen["timeout"])
        self.command = chosen["command"]
        self.connect_delay = _seconds("connect_delay", chosen["connect_delay"])
        self.connect_tries = max(1, int(chosen["connect_tries"]))
        self.pid = chosen["pid"]
        self.user = _word("user", chosen["user"])
        self.hostname = _word("hostname", chosen["hostname"])
        self.block = bool(chosen["block"])
        self.autounlock = bool(chosen["autounlock"])
        self.destroy_unlock = bool(chosen["destroy_unlock"])
        self.verbose = bool(chosen["verbose"])
        self.print_down = chosen["print_down"]
        self.messages: dict[str, Message | None] = {  # what Locker calls as it goes on
            name: chosen[name]  # type: ignore[literal-required]
            for name in ("print_broke", "print_obtained", "print_retry", "print_waiting")
        }

    def changed(self, **given: Unpack[LockerParameters]) -> LockSettings:
        """Make a copy with some parameters changed. Raises as the constructor does."""
        together: LockerParameters = {**self._given, **given}
        return LockSettings(**together) if given else self

    def servers(self) -> list[str]:
        """List the servers to try, in their order: hosts, or the one UNIX socket."""
        return [self.endpoint.path] if self.endpoint.path is not None else self.hosts

    def addresses(self, server: str) -> list[Address]:
        """Look up the addresses of one of the servers, which may take as long as the resolver does.

        Raises ServerUnavailable if its name is not known.
        """
        if self.endpoint.path is not None:
            return [socket_path(server)]
        return find_addresses(server, self.endpoint.port, socket.SOCK_STREAM)

    def user_name(self, suffix: str = "") -> bytes:
        """Say under which name a lock is held: `user`, else HOST_PID_USER with the suffix behind it."""
        if self.user is not None:
            return os.fsencode(self.user)
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"uid{os.getuid()}"
        pid = os.getpid() if self.pid is None else self.pid
        return os.fsencode(f"{self.hostname or own_host_name()}_{pid}_{'_'.join(user.split())}{suffix}")


def lock_names(names: str | Iterable[str]) -> tuple[bytes, ...]:
    """Encode lock names as they go over the wire. Raises UsageError for none, too many, or one with white space."""
    found = tuple(os.fsencode(name) for name in ([names] if isinstance(names, str) else names))
    for name in found:
        if len(name.split()) != 1 or name.split()[0] != name:
            raise UsageError(f"the lock name '{os.fsdecode(name)}' is empty or has white space: choose one word")
    if not 0 < len(found) <= MAX_NAMES:
        raise UsageError(f"{len(found)} lock names were given: it takes 1 to {MAX_NAMES}")
    return found


def host_names(hosts: str | Iterable[str] | None) -> list[str]:
    """Split a list of server hosts, or a colon-separated string; for None take IPCLOCKER_HOST, else localhost.

    Raises UsageError.
    """
    if hosts is None:
        hosts = os.environ.get("IPCLOCKER_HOST") or "localhost"
    found = split_hosts(hosts) if isinstance(hosts, str) else [name for host in hosts for name in split_hosts(host)]
    if not found:
        raise UsageError("no lock server host was given")
    return found


def session_name() -> bytes:
    """Make a session name that nobody can guess: a server takes all requests of one session for one owner's."""
    return os.urandom(12).hex().encode()


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise UsageError(f"{name} is '{value}': it takes a number of seconds, 0 or more")
    return float(value)


def _lease_seconds(value: float, timeout: float | None) -> float:
    lease = _seconds("lease", value)
    if 0 < lease < SHORTEST_LEASE:
        raise UsageError(f"lease is '{value}': it takes {SHORTEST_LEASE:.0f} seconds or more, or 0 for none")
    if lease and timeout:
        raise UsageError(f"timeout is '{timeout}', and lease '{value}': a lock is held for the one or the other")
    return lease


def _word(name: str, value: str | None) -> str | None:
    if value is not None and len(value.split()) != 1:
        raise UsageError(f"{name} is '{value}': it takes one word, without white space")
    return value
