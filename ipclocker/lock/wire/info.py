"""LOCK_INFO's lines about held locks and their waiters: as a server writes them, and as a client reads them.

    held NAME user U token N age SECONDS ...
    waiter NAME user U age SECONDS ...

The pairs behind the name come in any order; those that are not known, or whose value means nothing, are skipped.
Times are in seconds. Only who asks for locks by their names is told all of a holder's process that tells it from others
with its number.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from math import inf
from typing import Callable, NamedTuple, Optional, Union

from ..model import Grant, HolderProcess, LockRequest
from .requests import format_seconds

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class WaiterInfo(NamedTuple):
    """A waiter for the lock `name`, for `age` seconds now. What the server does not know is None."""

    name: bytes
    user: bytes = b""
    age: float = 0.0
    host: Optional[bytes] = None
    pid: Optional[int] = None
    address: Optional[bytes] = None
    command: Optional[bytes] = None
    slots: int = 1


class HeldInfo(NamedTuple):
    """A lock that has been held for `age` seconds. What does not apply, or the server does not know, is None.

    hold: the hold time, after which it is taken away; lease: the same, of a hold that is renewed (seconds)
    left: seconds until then
    recalled: its holder was asked to release it
    outlived: its lease has run out, and its process is known to live
    confirmed: its holder is known to have received the grant
    start, boot, pidns, timens: more of its holder's process, as in HolderProcess
    slots: how many holders the lock may have while this is one of them; 0: any number
    minhold: for how many seconds it is held at least; kept: nobody holds it any more, and that time is not over
    waiters: the waiters for it, in the order of the queue; others: its other holders
    """

    name: bytes
    user: bytes = b""
    token: int = 0
    age: float = 0.0
    host: Optional[bytes] = None
    pid: Optional[int] = None
    address: Optional[bytes] = None
    hold: Optional[float] = None
    lease: Optional[float] = None
    left: Optional[float] = None
    recalled: bool = False
    outlived: bool = False
    confirmed: bool = True
    command: Optional[bytes] = None
    start: Optional[int] = None
    boot: Optional[bytes] = None
    pidns: Optional[int] = None
    timens: Optional[int] = None
    slots: int = 1
    minhold: Optional[float] = None
    kept: bool = False
    waiters: tuple[WaiterInfo, ...] = ()
    others: tuple[HeldInfo, ...] = ()


class InfoReader:
    """Collects the lines of one answer of a server."""

    def __init__(self) -> None:
        self._held: dict[bytes, list[HeldInfo]] = {}
        self._waiters: dict[bytes, list[WaiterInfo]] = {}

    def read(self, words: list[bytes]) -> None:
        """Read a line, which has two words or more."""
        if words[0] == b"held":
            held = HeldInfo(words[1], **_pairs(words, _HELD))  # type: ignore[arg-type]
            self._held.setdefault(held.name, []).append(held)
        else:
            waiter = WaiterInfo(words[1], **_pairs(words, _WAITER))  # type: ignore[arg-type]
            self._waiters.setdefault(waiter.name, []).append(waiter)

    def result(self) -> tuple[HeldInfo, ...]:
        """Return the held locks, each with its waiters, in the order of the answer; of several holders the oldest."""
        return tuple(map(self._lock, self._held.values()))

    def _lock(self, holders: list[HeldInfo]) -> HeldInfo:
        first, *others = sorted(holders, key=lambda held: held.token)
        return first._replace(waiters=tuple(self._waiters.get(first.name, ())), others=tuple(others))


def decode_command(word: bytes) -> bytes:
    """Undo `requests.encode_command`; an escape that is not valid stays as it is."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), word)


_Value = Union[bytes, int, float, bool]


def _flag(word: bytes) -> bool:
    return bool(int(word))


_WAITER: dict[bytes, Callable[[bytes], _Value]] = {
    b"user": bytes,
    b"age": float,
    b"host": bytes,
    b"pid": int,
    b"address": bytes,
    b"command": decode_command,
    b"slots": int,
}
_HELD: dict[bytes, Callable[[bytes], _Value]] = {
    **_WAITER,
    b"token": int,
    b"hold": float,
    b"lease": float,
    b"left": float,
    b"recalled": _flag,
    b"outlived": _flag,
    b"confirmed": _flag,
    b"start": int,
    b"boot": bytes,
    b"pidns": int,
    b"timens": int,
    b"minhold": float,
    b"kept": _flag,
}


def _pairs(words: list[bytes], known: dict[bytes, Callable[[bytes], _Value]]) -> dict[str, _Value]:
    pairs = {}
    for key, word in zip(words[2::2], words[3::2]):
        if key in known:
            with contextlib.suppress(ValueError):
                pairs[key.decode()] = known[key](word)
    return pairs


# Lines, as a server writes them


def held_line(grant: Grant, now: float, in_full: bool = False) -> bytes:
    """Write the line of one held lock; `now` is the server's monotonic time.

    `in_full`: with all that is known of its holder's process.
    """
    words = [b"held %b user %b token %d age %.3f" % (grant.name, grant.user, grant.token, now - grant.since)]
    if grant.process is not None:
        words.append(_process_words(grant.process))
        if in_full:
            words += _identity_words(grant.process)
    if grant.hold:
        words.append(b"%b %b" % (b"lease" if grant.lease else b"hold", format_seconds(grant.hold)))
    if (grant.hold or grant.kept) and grant.deadline < inf:
        words.append(b"left %.3f" % max(grant.deadline - now, 0.0))
    if grant.slots != 1:
        words.append(b"slots %d" % grant.slots)
    if grant.min_hold:
        words.append(b"minhold %b" % format_seconds(grant.min_hold))
    if grant.kept:
        words.append(b"kept 1")
    if grant.recalled:
        words.append(b"recalled 1")
    if grant.outlived:
        words.append(b"outlived 1")
    if grant.confirm_by < inf:
        words.append(b"confirmed 0")
    if grant.command:
        words.append(b"command %b" % grant.command)
    return b" ".join(words) + b"\n"


def waiter_line(name: bytes, request: LockRequest, now: float) -> bytes:
    """Write the line of one waiter for a lock; `now` is the server's monotonic time."""
    words = [b"waiter %b user %b age %.3f" % (name, request.owner[0], now - request.queued_at)]
    if request.process is not None:
        words.append(_process_words(request.process))
    elif request.address:
        words.append(b"address %b" % request.address.encode())
    if request.slots != 1:
        words.append(b"slots %d" % request.slots)
    if request.command:
        words.append(b"command %b" % request.command)
    return b" ".join(words) + b"\n"


def _identity_words(process: HolderProcess) -> Iterator[bytes]:
    if process.start is not None:
        yield b"start %d" % process.start
    if process.boot:
        yield b"boot %b" % process.boot
    if process.pidns is not None:
        yield b"pidns %d" % process.pidns
    if process.timens is not None:
        yield b"timens %d" % process.timens


def _process_words(process: HolderProcess) -> bytes:
    words = b"host %b pid %d" % (process.host, process.pid) if process.host else b"pid %d" % process.pid
    return words + b" address %b" % process.address.encode() if process.address else words
