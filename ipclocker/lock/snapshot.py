"""The results of questions about locks: the locks of a server at one moment, and the outcome of breaking one."""

from __future__ import annotations

from typing import NamedTuple, Optional

from .wire.info import HeldInfo

# Outcomes of breaking a lock. HELD: it was recalled, and is still held.
BROKEN, RECALLED, FREE, HELD = "broken", "recalled", "free", "held"


class Snapshot(NamedTuple):
    """The locks that a server holds, sorted by name, at `time` (seconds since 1970).

    Without `detailed` no more is known of each than its name and its user: a classic server says nothing else.
    """

    server: str
    time: float
    locks: tuple[HeldInfo, ...]
    detailed: bool


class Ping(NamedTuple):
    """A server that answered in `seconds`; `started` is in seconds since 1970, None if it did not say."""

    server: str
    seconds: float
    version: str
    started: Optional[float]


# States of a listed host: it serves; another one does in its place; it does not answer.
SERVES, STANDS_BY, SILENT = "serves", "stands by", "silent"


class HostState(NamedTuple):
    """One of the listed hosts: SERVES, with a `ping`; STANDS_BY; or SILENT, for the reason `problem`.

    `space` is the identity of the lock space that it serves or stands by for, "" if it did not say; it `is_replicated`
    if others may serve it, too.
    """

    server: str
    state: str
    ping: Optional[Ping] = None
    problem: str = ""
    space: str = ""
    is_replicated: bool = False


class Taking(NamedTuple):
    """The server's answer to BREAK_LOCK or RECALL: `what` is BROKEN, RECALLED or FREE; `holder` had the lock."""

    what: str
    holder: bytes


class Outcome(NamedTuple):
    """The end of breaking a lock: BROKEN, RECALLED, FREE or HELD, after `waited` seconds.

    `lives`: the holder's process is known to live.
    """

    name: str
    what: str
    holder: bytes = b""
    waited: float = 0.0
    lives: bool = False
