"""The pause before a process that died is started again (pure: the time comes in, a pause comes out).

A death after a good run is answered nearly at once: whatever it was, it is rare. Deaths in quick succession
are answered with pauses that double up to a cap, so that a process which cannot live costs next to nothing.
The pauses are a little random, so that many processes that died of one cause do not come back in one instant.

A caller that wants to stop trying at some time gives a number of deaths within a time (GiveUp). The pauses are part of
that time. Since they grow, many deaths in a short time never come: `shortest` tells that beforehand.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Callable, NamedTuple

from ..errors import UsageError

FIRST_PAUSE = 0.1  # seconds, after the first death: too short for people to notice
LONGEST_PAUSE = 30.0  # seconds: starts cost next to nothing then, and what was repaired runs again soon
GOOD_RUN = 60.0  # seconds; deaths before a run of this length are forgotten
SPREAD = 0.2  # the part of a pause that is left to chance: ten that died together come back over 20 % of a pause
MOST_DEATHS = 1_000  # that can be counted before giving up: the time of each is kept


class GiveUp(NamedTuple):
    """The limit after which a process is not started again: so many deaths within so many seconds."""

    deaths: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.deaths}/{self.seconds:g}"


def parse_give_up(text: str) -> GiveUp:
    """Return the deaths and seconds of `N/S`, as "5/10". Raises UsageError for any other text."""
    deaths, _, seconds = text.partition("/")
    try:
        give_up = GiveUp(int(deaths), float(seconds))
    except ValueError:
        give_up = GiveUp(0, 0.0)
    if not (1 <= give_up.deaths <= MOST_DEATHS and 0.0 < give_up.seconds < inf):
        raise UsageError(
            f"'{text}' does not say when to give up: write deaths/seconds, as 5/10, with up to {MOST_DEATHS} deaths"
        )
    return give_up


class RestartPolicy:
    """The pauses of one process. `now` is in seconds on any clock that does not go back."""

    def __init__(
        self,
        chance: Callable[[], float],
        *,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        good_run: float = GOOD_RUN,
        give_up: GiveUp | None = None,
    ) -> None:
        """Begin without deaths. All times are in seconds.

        `chance` returns a number from 0 up to but not including 1, as random.random does. The pauses double from
        `first_pause` to `longest_pause`; deaths before a run of `good_run` do not count.
        """
        self._chance = chance
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._good_run = good_run
        self._next_pause = first_pause
        self._started_at: float | None = None
        self._give_up = give_up
        self._deaths: deque[float] = deque(maxlen=give_up.deaths if give_up is not None else 0)  # when, the latest

    def started(self, now: float) -> None:
        """Take note that the process was started."""
        self._started_at = now

    def died(self, now: float) -> float:
        """Take note that it died or could not be started; return the seconds to wait before it is started again."""
        if self._started_at is not None and now - self._started_at >= self._good_run:
            self._next_pause = self._first_pause
        self._started_at = None
        self._deaths.append(now)
        pause = min(self._next_pause, self._longest_pause)
        self._next_pause = min(2 * pause, self._longest_pause)
        return pause * (1.0 - SPREAD * self._chance())

    @property
    def given_up(self) -> bool:
        """True if the latest death was the one after which it is not to be started again."""
        if self._give_up is None or len(self._deaths) < self._give_up.deaths:
            return False
        return self._deaths[-1] - self._deaths[0] <= self._give_up.seconds

    def reset(self) -> None:
        """Forget all deaths: somebody wants the process to be started again."""
        self._next_pause = self._first_pause
        self._started_at = None
        self._deaths.clear()


def shortest(deaths: int, *, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE) -> float:
    """Return the least seconds from the first to the last of so many deaths, none of them after a good run.

    That is what their pauses take: a limit of as many deaths in less time is never reached.
    """
    policy = RestartPolicy(lambda: 1.0, first_pause=first_pause, longest_pause=longest_pause)
    return sum(policy.died(0.0) for _ in range(deaths - 1))
