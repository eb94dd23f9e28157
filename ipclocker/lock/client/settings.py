"""The parameters of a Locker, with the names and defaults of IPC::Locker, and their check."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterable
from math import inf
from typing import Any, Callable, TypedDict, Union, cast

from ...errors import UsageError
from ...net.address import Address, Host, find_addresses, own_host_name, socket_path, split_hosts
from ...net.line_buffer import MAX_LINE
from ...net.text import decode_text, encode_text
from ...process.identity import parse_pid
from ..endpoint import endpoint
from ..wire.requests import MAX_NAME, MAX_NAMES, MAX_NUMBER, MAX_SECONDS

Message = Callable[..., object]
SHORTEST_LEASE = 3.0  # seconds; of a shorter one there would be no time to end what it protects (lease.py)


class LockerParameters(TypedDict, total=False):
    """The parameters of a Locker, which explains them."""

    lock: Union[str, Iterable[str]]
    host: Union[str, Iterable[str], None]
    port: Union[str, int, None]
    family: str
    path: Union[str, None]
    all: bool
    hold: Union[float, None]
    timeout: Union[float, None]
    lease: float
    slots: int
    shared: bool
    min_hold: float
    wait: Union[float, None]
    block: bool
    command: Union[str, None]
    user: Union[str, None]
    pid: Union[int, str, None]
    hostname: Union[str, None]
    autounlock: Union[bool, None]
    destroy_unlock: bool
    connect_tries: int
    connect_delay: float
    verbose: bool
    print_broke: Union[Message, None]
    print_down: Union[Message, None]
    print_obtained: Union[Message, None]
    print_retry: Union[Message, None]
    print_waiting: Union[Message, None]


HOLD = 1800.0  # seconds; as IPC::Locker has it
_DEFAULTS: LockerParameters = {  # None for all others
    **dict.fromkeys(LockerParameters.__annotations__),  # type: ignore[typeddict-item]
    "family": "INET",
    "lock": "lock",
    "all": False,
    "lease": 0,
    "slots": 1,
    "shared": False,
    "min_hold": 0,
    "block": True,
    "destroy_unlock": True,
    "connect_tries": 3,
    "connect_delay": 30,
    "verbose": False,
}


class LockSettings:
    """Checked parameters, each an attribute of the same name; `names`, `hosts` and `groups` are made from them."""

    def __init__(self, **given: Any) -> None:
        """Check them. Raises UsageError for a value that means nothing, TypeError for an unknown parameter."""
        unknown = given.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(f"a Locker has no parameter '{min(unknown)}'")
        for name in ("lock", "host"):
            if name in given:
                given[name] = _words(name, given[name])
        self.given = given
        chosen = cast(LockerParameters, {**_DEFAULTS, **given})
        self.names = lock_names(chosen["lock"])
        self.hosts = host_names(chosen["host"])
        self.endpoint = endpoint(
            _port(chosen["port"]), _text("family", chosen["family"]), _optional_text("path", chosen["path"])
        )
        # What is asked for one after the other. Names that are wanted together are asked for in one order, which is the
        # same for all clients, so that no two hold a part each and wait for the other's.
        self.all = _flag("all", chosen["all"])
        self.groups: list[tuple[bytes, ...]] = [self.names]
        if self.all:
            self.groups = [(name,) for name in sorted(set(self.names))]
        longest = max(sum(map(len, group)) + len(group) for group in self.groups)
        if longest > MAX_LINE - len(b"locks"):
            raise UsageError(f"the lock names have {longest} bytes together, which no server reads: give fewer")
        hold = _hold_seconds(chosen["hold"], chosen["timeout"])
        self.lease = _lease_seconds(chosen["lease"], hold)
        self.hold = self.lease or (HOLD if hold is None else hold)
        self.slots = _slots(chosen["slots"], _flag("shared", chosen["shared"]))
        self.min_hold = _seconds("min_hold", chosen["min_hold"])
        self.wait = inf if chosen["wait"] in (None, inf) else _seconds("wait", chosen["wait"])
        self.command = _optional_text("command", chosen["command"])
        self.connect_delay = _seconds("connect_delay", chosen["connect_delay"])
        self.connect_tries = _tries(chosen["connect_tries"])
        self.pid = None if chosen["pid"] is None else parse_pid(chosen["pid"])
        self.user = _word("user", chosen["user"])
        self.hostname = _word("hostname", chosen["hostname"])
        self.block = _flag("block", chosen["block"])
        self.destroy_unlock = _flag("destroy_unlock", chosen["destroy_unlock"])
        self.autounlock = self._autounlock(chosen["autounlock"])
        self.verbose = _flag("verbose", chosen["verbose"])
        self.print_down = chosen["print_down"]
        self.messages: dict[str, Message | None] = {  # what Locker calls as it goes on
            "print_broke": chosen["print_broke"],
            "print_obtained": chosen["print_obtained"],
            "print_retry": chosen["print_retry"],
            "print_waiting": chosen["print_waiting"],
        }
        for name, message in (*self.messages.items(), ("print_down", self.print_down)):
            if message is not None and not callable(message):
                raise UsageError(f"{name} is {message!r}: it takes a function")

    def _autounlock(self, given: bool | None) -> bool | None:
        """Return what was asked for; None to free the lock of a process that is gone if it is known for certain.

        A lock that others are to release is not freed unless that is asked for. Nor is a lease, which is over by itself
        when its process has ended, and is to be so when that stands still.
        """
        if given is not None:
            return _flag("autounlock", given)
        outlives = (self.user, self.pid, self.hostname) != (None, None, None) or not self.destroy_unlock
        return False if outlives or self.lease else None

    def changed(self, **given: Any) -> LockSettings:
        """Make a copy with some parameters changed. Raises as the constructor does."""
        together = {**self.given, **given}
        if ("hold" in given) != ("timeout" in given):  # the new one goes before the old one, whatever it was called
            together["timeout" if "hold" in given else "hold"] = None
        return LockSettings(**together) if given else self

    def servers(self) -> list[Host]:
        """List the servers to try, in their order: hosts, or the one UNIX socket."""
        return [Host(self.endpoint.path)] if self.endpoint.path is not None else self.hosts

    def addresses(self, server: Host) -> list[Address]:
        """Look up the addresses of one of the servers, which may take as long as the resolver does.

        Raises ServerUnavailable if its name is not known.
        """
        if self.endpoint.path is not None:
            return [socket_path(self.endpoint.path)]
        port = self.endpoint.port if server.port is None else server.port
        return find_addresses(server.name, port, socket.SOCK_STREAM)

    def user_name(self, suffix: str = "") -> bytes:
        """Say under which name a lock is held: `user`, else HOST_PID_USER with the suffix behind it."""
        if self.user is not None:
            return encode_text(self.user)
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"uid{os.getuid()}"
        pid = os.getpid() if self.pid is None else self.pid
        return encode_text(f"{self.hostname or own_host_name()}_{pid}_{'_'.join(user.split())}{suffix}")


def lock_names(names: str | Iterable[str]) -> tuple[bytes, ...]:
    """Encode lock names as they go over the wire.

    Raises UsageError for none, too many, or one with white space. Longer ones than may be asked for are known to old
    servers, so lockstat takes them.
    """
    words = _words("lock", names)
    assert words is not None
    found = tuple(encode_text(name) for name in ([words] if isinstance(words, str) else words))
    for name in found:
        if len(name.split()) != 1 or name.split()[0] != name:
            raise UsageError(f"the lock name {decode_text(name)!r} is empty or has white space: choose one word")
    if not 0 < len(found) <= MAX_NAMES:
        raise UsageError(f"{len(found)} lock names were given: it takes 1 to {MAX_NAMES}")
    return found


def check_lengths(names: Iterable[bytes]) -> None:
    """Raise UsageError for a lock name that is longer than one that may be asked for."""
    for name in names:
        if len(name) > MAX_NAME:
            raise UsageError(
                f"the lock name '{decode_text(name[:40])}...' has {len(name)} bytes: choose one of {MAX_NAME} at most"
            )


def host_names(hosts: str | Iterable[str] | None) -> list[Host]:
    """Split a list of server hosts, or a colon-separated string; for None take IPCLOCKER_HOST, else localhost.

    Raises UsageError.
    """
    if hosts is None:
        hosts = os.environ.get("IPCLOCKER_HOST") or "localhost"
    found = split_hosts(hosts) if isinstance(hosts, str) else [host for text in hosts for host in split_hosts(text)]
    if not found:
        raise UsageError("no lock server host was given")
    return found


def host_word(name: str) -> bytes:
    """Encode a host's name as it goes over the wire. Raises UsageError for what is no word."""
    return encode_text(_word("host", _text("host", name)) or "")


def _words(parameter: str, given: object) -> str | tuple[str, ...] | None:
    """Return a text as it is, and several as a tuple. Raises UsageError."""
    if given is None and parameter == "host":
        return None
    try:
        words: Any = given if isinstance(given, str) else tuple(given)  # type: ignore[arg-type]
    except TypeError:
        words = (given,)
    for word in [words] if isinstance(words, str) else words:
        if not isinstance(word, str) or not _is_encodable(word):
            raise UsageError(f"{parameter} is {given!r}: it takes a text, or several as a list")
    return words  # type: ignore[no-any-return]


def _is_encodable(text: str) -> bool:
    try:
        encode_text(text)
    except UnicodeEncodeError:
        return False
    return True


def _text(parameter: str, given: object) -> str:
    if not isinstance(given, str) or not _is_encodable(given):
        raise UsageError(f"{parameter} is {given!r}: it takes a text")
    return given


def _optional_text(parameter: str, given: object) -> str | None:
    return None if given is None else _text(parameter, given)


def _port(given: object) -> str | int | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, (str, int))):
        raise UsageError(f"port is {given!r}: it takes a number, the name of a service, or that of a UNIX socket")
    return given


def _flag(parameter: str, given: object) -> bool:
    if given not in (True, False, None):  # 1 and 0, too, as Perl has them
        raise UsageError(f"{parameter} is {given!r}: it takes True or False")
    return bool(given)


def _tries(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise UsageError(f"connect_tries is {given!r}: it takes a whole number")
    return max(1, given)


def _slots(given: object, shared: bool) -> int:
    """Return the slots as the protocol has them, where 0 is any number. Raises UsageError."""
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MAX_NUMBER:
        raise UsageError(f"slots is {given!r}: it takes a whole number, from 1 on")
    if shared and given != 1:
        raise UsageError(f"slots is {given}, and shared is True: a shared lock has no limit, so give one of them")
    return 0 if shared else given


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_SECONDS:
        raise UsageError(f"{name} is '{value}': it takes a number of seconds, from 0 to {MAX_SECONDS}")
    return float(value)


def _hold_seconds(hold: float | None, timeout: float | None) -> float | None:
    if hold is not None and timeout is not None:
        raise UsageError(f"hold is '{hold}', and timeout '{timeout}': they are two names for one time, so give one")
    if timeout is not None:
        return _seconds("timeout", timeout)
    return None if hold is None else _seconds("hold", hold)


def _lease_seconds(value: float, hold: float | None) -> float:
    lease = _seconds("lease", value)
    if 0 < lease < SHORTEST_LEASE:
        raise UsageError(f"lease is '{value}': it takes {SHORTEST_LEASE:.0f} seconds or more, or 0 for none")
    if lease and hold:
        raise UsageError(
            f"hold (or timeout) is '{hold:g}', and lease '{value}': a lock is held for the one or the other"
        )
    return lease


def _word(name: str, value: object) -> str | None:
    if value is not None and len(_text(name, value).split()) != 1:
        raise UsageError(f"{name} is '{value}': it takes one word, without white space")
    return value  # type: ignore[return-value]
