"""Who of several lockerd leads: a thread that stands by or leads in etcd, and tells the loop what has become of it."""

from __future__ import annotations

import logging
import time
from functools import partial
from math import inf
from threading import Condition, Thread
from typing import Any, Callable, Protocol

from .candidate import Candidate, Events, Identity
from .etcd_lease import Body

_AFTER_FAULT = 1.0  # seconds until a step that has failed for a fault of ours is tried again

log = logging.getLogger(__name__)


class Client(Protocol):
    """An etcd client, for one thread; as EtcdClient."""

    def call(self, path: str, body: Body, deadline: float) -> dict[str, Any]:
        """The answer; `deadline` is on the monotonic clock. Raises EtcdRefused, EtcdUnavailable, StateError."""

    def close(self) -> None:
        """Let go of its connections."""


def now() -> float:
    """The time that terms are counted on, in seconds: it goes on while the host is suspended, where there is such."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Election:
    """Leads or stands by, from `start` until `resign`; `client` is its own from then on, and closed in the end.

    `prefix` of all keys ends in a slash. `ttl` (whole seconds) is how long a term outlives its last renewal. All of
    `events` are called by way of `call_in_loop`, which calls in a turn of the loop, in the order in which it was
    called (Loop.call_from_thread). A loop that does not turn for `ttl` lets its term run out.
    """

    def __init__(
        self,
        client: Client,
        prefix: str,
        identity: Identity,
        ttl: int,
        call_in_loop: Callable[[Callable[[], None]], None],
        events: Events,
    ) -> None:
        self._client = client
        self._call_in_loop = call_in_loop
        told = Events(*(partial(self._tell, event) for event in events))
        self._candidate = Candidate(self._call, now, told, prefix, identity, ttl)
        self._turned = time.monotonic()
        self._is_asked_to_turn = False
        self._changed = Condition()
        self._to_step_down: tuple[int, str] | None = None
        self._resign_until: float | None = None  # set when it is over
        self._thread = Thread(target=self._run, name="election", daemon=True)

    def valid_until(self, term: int) -> float:
        """Return when this term is over unless it is renewed, in seconds on `now`; minus infinity if it is over.

        Past it, nobody may be told any more that he holds something. Any thread may ask.
        """
        current, until = self._candidate.validity
        return until if current == term else -inf

    def start(self) -> None:
        """Begin to look who leads."""
        self._thread.start()

    def note_turn(self, when: float) -> None:
        """Take note that the loop has turned (monotonic, in seconds).

        It is made to turn now and then, so it is told only from within one that lasts long.
        """
        self._turned = when

    def step_down(self, term: int, reason: str) -> None:
        """Give this term up, unless it is over; `lost` is called as for each other end. Returns at once."""
        with self._changed:
            self._to_step_down = term, reason
            self._changed.notify()

    def resign(self, within: float = 1.0) -> bool:
        """End it, and leave nothing in etcd; True if that was done in as many seconds. No event is called from now on.

        What could not be taken out of etcd goes by itself after the ttl.
        """
        with self._changed:
            self._resign_until = time.monotonic() + within
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(within)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while pause != inf:
            self._ask_to_turn()
            with self._changed:
                if self._resign_until is None and self._to_step_down is None:
                    self._changed.wait(pause)
                if self._resign_until is not None:
                    break
                step_down, self._to_step_down = self._to_step_down, None
            pause = self._step(step_down)
        if self._resign_until is not None:
            self._candidate.resign(max(self._resign_until - time.monotonic(), 0.0))
        self._client.close()

    def _step(self, step_down: tuple[int, str] | None) -> float:
        try:
            if step_down is not None and step_down[0] == self._candidate.term:
                self._candidate.step_down(step_down[1])
            return self._candidate.step(time.monotonic() - self._turned)
        except Exception as problem:
            log.exception("a fault of ours")
            self._candidate.lose(f"a fault of ours: {problem!r}")
            return _AFTER_FAULT

    def _ask_to_turn(self) -> None:
        if not self._is_asked_to_turn:
            self._is_asked_to_turn = True
            self._call_in_loop(self._has_turned)

    def _has_turned(self) -> None:
        self._is_asked_to_turn = False
        self.note_turn(time.monotonic())

    def _call(self, path: str, body: Body, within: float) -> dict[str, Any]:
        return self._client.call(path, body, time.monotonic() + within)

    def _tell(self, event: Callable[..., None], *what: object) -> None:
        self._call_in_loop(partial(self._call_unless_over, event, *what))

    def _call_unless_over(self, event: Callable[..., None], *what: object) -> None:
        if self._resign_until is None:
            event(*what)
