"""What is known about a server and its locks at one moment, and what became of a lock that was to be taken away."""

from __future__ import annotations

from typing import NamedTuple, Optional

from .wire.info import HeldInfo

# What became of a lock that was to be taken from its holder. HELD: it was recalled, and is held even so.
BROKEN, RECALLED, FREE, HELD = "broken", "recalled", "free", "held"


class Snapshot(NamedTuple):
    """The locks that a server holds, sorted by name, at `time` (seconds since 1970).

    Without `detailed` the server has told no more of each than its name and its user.
    """

    server: str
    time: float
    locks: tuple[HeldInfo, ...]
    detailed: bool


class Ping(NamedTuple):
    """A server that answered in `seconds`; `started` is in seconds since 1970, None if it did not tell."""

    server: str
    seconds: float
    version: str
    started: Optional[float]


class Taking(NamedTuple):
    """What a server did when a lock was to be taken: BROKEN, RECALLED or FREE; and from whom."""

    what: str
    holder: bytes


class Outcome(NamedTuple):
    """What became of a lock, and who held it. `waited` seconds; `lives`: that process is known to live."""

    name: str
    what: str
    holder: bytes = b""
    waited: float = 0.0
    lives: bool = False
