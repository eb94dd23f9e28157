"""Taking locks from their holders for lockstat: a lease is recalled, so that its holder ends its command first.

A recall is done when the grant with that token does not stand any more, even if the lock has another holder by then.
It takes no longer than the lease, which is not renewed any more, and the server's look at the holder's process; only
a process that is known to live keeps the lock beyond that.

While one server of a lock space takes over from another, it is asked again. What was asked for then may have been done
already, and the lock be another one's: so who had it is looked up before, and nobody else is taken anything from.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import inf
from typing import Callable, NamedTuple, Optional, TypeVar

from ...errors import ServerUnavailable
from ...net.text import decode_text
from ..snapshot import BROKEN, FREE, HELD, RECALLED, Outcome, Taking
from ..wire.info import HeldInfo
from .inspector import Inspector
from .settings import lock_names

LOOK_WITHIN = 15.0  # seconds after the end of a lease in which its server finds out whether the holder lives
# Seconds from one look to the next: most commands end at once when they are told to; later a second is soon enough.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0

_Found = TypeVar("_Found")


class _Recalled(NamedTuple):
    """Recalled grants of one lock: since when their end is waited for, and until when (seconds, monotonic)."""

    holder: bytes
    tokens: frozenset[int]
    since: float
    until: float


class LockBreaker:
    """Breaks locks of one server. `say` is called with what there is to report meanwhile, a line each.

    `timeout` is the longest wait for the end of a lease, and for a server, in seconds; None for as long as they may
    last. `clock` is the monotonic clock, in seconds, and `sleep` waits for seconds.
    """

    def __init__(
        self,
        inspector: Inspector,
        say: Callable[[str], None],
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inspector = inspector
        self._say = say
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep

    def force(self, names: Iterable[str]) -> Iterable[Outcome]:
        """Take locks from their holders at once. Raises as an Inspector does; nothing is done if a name is invalid."""
        latest = self._latest()
        for name in _checked(names):
            yield Outcome(name, *self._take(name, self._inspector.break_lock, latest))

    def recall(self, names: Iterable[str]) -> Iterable[Outcome]:
        """Recall leases, all at the same time, and take other locks at once; yield each outcome when it is known.

        Nothing is done if a name is invalid. Raises as an Inspector does; ServerUnavailable if the server is still gone
        at the end of the wait.
        """
        recalled: dict[str, _Recalled] = {}
        latest = self._latest()
        for name in _checked(names):
            what, holder = self._take(name, self._inspector.recall, latest)
            lease = self._ask(lambda name=name: self._held(name), latest) if what == RECALLED else None  # type: ignore[misc]
            leases = [held for held in _holders(lease) if held.recalled]
            if not leases:  # given back already, and perhaps another one's by now
                yield Outcome(name, what, holder)
                continue
            now = self._clock()
            left = max(held.left or 0.0 for held in leases)
            longest = left + LOOK_WITHIN if self._timeout is None else self._timeout
            lease = leases[0]
            recalled[name] = _Recalled(lease.user, frozenset(held.token for held in leases), now, now + longest)
            told = f"lock {name}: {decode_text(lease.user)} was told to end what it runs and to give it back"
            self._say(f"{told}; waiting for that, {longest:.0f} s at most" if longest else told)
        for name, grant in recalled.items():
            yield self._await_end(name, grant)

    def _await_end(self, name: str, grant: _Recalled) -> Outcome:
        """Wait until the grants with these tokens have ended, or the wait is over."""
        pause = _FIRST_PAUSE
        lives = False
        while True:
            leases = self._ask(lambda: _holders(self._held(name)), inf, grant.until)
            leases = [held for held in leases if held.token in grant.tokens and not held.kept]
            waited = self._clock() - grant.since
            if not leases:
                return Outcome(name, RECALLED, grant.holder, waited)
            if leases[0].outlived and not lives:
                lives = True
                self._say(f"lock {name}: the lease is over, but its process is known to live, so it stays held")
            if self._clock() >= grant.until:
                return Outcome(name, HELD, grant.holder, waited, lives)
            self._sleep(min(pause, max(grant.until - self._clock(), 0.0)))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _take(self, name: str, take: Callable[[str], Taking], latest: float) -> Taking:
        """Take a lock from who holds it now, and from nobody who gets it while the answer is on its way."""
        seen: list[Optional[HeldInfo]] = []  # the grant that is asked for; None: there was none

        def look_and_take() -> Taking:
            held = self._held(name)
            if not seen:
                seen.append(held)
            elif seen[0] is None:
                return Taking(FREE, b"")
            elif held is None or held.token != seen[0].token:
                return Taking(RECALLED if take == self._inspector.recall and seen[0].lease else BROKEN, seen[0].user)
            return take(name)

        return self._ask(look_and_take, latest)

    def _ask(self, question: Callable[[], _Found], latest: float, until: float = -inf) -> _Found:
        """Ask; while nobody answers, ask again: until then, or as long as another one may take over, up to `latest`."""
        begin = self._clock()
        pause = _FIRST_PAUSE
        while True:
            try:
                return question()
            except ServerUnavailable as problem:
                end = max(until, min(latest, begin + self._inspector.patience))
                if self._clock() >= end:
                    raise
                if pause == _FIRST_PAUSE:
                    self._say(f"{problem}; asking again")
            self._sleep(min(pause, end - self._clock()))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _latest(self) -> float:
        return inf if self._timeout is None else self._clock() + self._timeout

    def _held(self, name: str) -> Optional[HeldInfo]:
        locks = self._inspector.look(name).locks
        return locks[0] if locks else None


def _holders(lock: Optional[HeldInfo]) -> list[HeldInfo]:
    return [] if lock is None else [lock, *lock.others]


def _checked(names: Iterable[str]) -> list[str]:
    """Return each name once. Raises UsageError for one that can't be a lock's name."""
    each = list(dict.fromkeys(names))
    for name in each:
        lock_names(name)
    return each
