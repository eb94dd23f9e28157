"""How long to wait before a process that died is started again (pure: the time comes in, a pause comes out).

A death after a good run is answered nearly at once: whatever it was, it is rare. Deaths in quick succession
are answered with pauses that double up to a cap, so that a process which cannot live costs next to nothing.
The pauses are a little random, so that many processes that died of one cause do not come back in one instant.
"""

from __future__ import annotations

from typing import Callable

FIRST_PAUSE = 0.1  # seconds, after the first death
LONGEST_PAUSE = 30.0  # seconds
GOOD_RUN = 60.0  # seconds; deaths before a run of this length are forgotten
SPREAD = 0.2  # the part of a pause that is left to chance


class RestartPolicy:
    """The pauses of one process. `now` is in seconds on any clock that does not go back.

    `chance` returns a number from 0 up to but not including 1, as random.random does.
    """

    def __init__(
        self,
        chance: Callable[[], float],
        *,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        good_run: float = GOOD_RUN,
    ) -> None:
        self._chance = chance
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._good_run = good_run
        self._next_pause = first_pause
        self._started_at: float | None = None

    def started(self, now: float) -> None:
        """The process was started."""
        self._started_at = now

    def died(self, now: float) -> float:
        """The process died, or could not be started; the seconds to wait before it is started again."""
        if self._started_at is not None and now - self._started_at >= self._good_run:
            self._next_pause = self._first_pause
        self._started_at = None
        pause = min(self._next_pause, self._longest_pause)
        self._next_pause = min(2 * pause, self._longest_pause)
        return pause * (1.0 - SPREAD * self._chance())
