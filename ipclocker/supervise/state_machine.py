"""The life of one program (pure: events and the time come in, what is to be done comes out).

             START                up for a second
    STOPPED ------> STARTING -----------------------> RUNNING
                      ^   |  died                        |  died
                START |   v                              |
                     BACKOFF <---------------------------'    died too often: FATAL

    UP -- stop, restart, forbid --> STOPPING -- cleared --> STOPPED, STARTING or STANDBY

A program is one process, its leader, and whatever that has started. When the leader has died, what it has left is
ended too, and only when nothing of it is left (`cleared`) the program is started again: so there are never two of it.
STANDBY is for one that is to run but may not: somebody else has the right to run it.
"""

from __future__ import annotations

from math import inf

from ..process.restart_policy import RestartPolicy

STOPPED = "STOPPED"  # nobody wants it to run
STANDBY = "STANDBY"  # it is to run, but may not
STARTING = "STARTING"  # it runs, but for less than UP_AFTER
RUNNING = "RUNNING"
BACKOFF = "BACKOFF"  # it died, and is started again after a pause
STOPPING = "STOPPING"  # it was told to end
FATAL = "FATAL"  # it died too often

UP = frozenset({STARTING, RUNNING})
PASSING = frozenset({STARTING, STOPPING})  # these become others in a bounded time

# What is to be done. Whoever did START answers with `started` or `failed`.
START = "start"
TERMINATE = "terminate"  # the stop signal to all that there is of it
KILL = "kill"  # SIGKILL to all that there is of it
ABANDON = "abandon"  # it can't be ended: go on as if it were gone

UP_AFTER = 1.0  # seconds from a start until it counts as running
KILL_AGAIN = 0.2  # seconds between two looks at who is left to be killed
KILL_PATIENCE = 5.0  # seconds of killing until what is left is given up


class ProgramStateMachine:
    """One program. Each event returns what is to be done now; `tick` is such an event, wanted at `due`.

    `now` is in seconds on any clock that does not go back.
    """

    def __init__(self, policy: RestartPolicy, *, stop_timeout: float, allowed: bool = True) -> None:
        """`stop_timeout`: seconds from the stop signal to SIGKILL; `allowed`: whether it may run."""
        self.state = STOPPED
        self.starts = 0
        self.alive = False  # whether its leader lives
        self.has_orphans = False  # whether that is dead and has left others
        self._policy = policy
        self._stop_timeout = stop_timeout
        self._wanted = False
        self._allowed = allowed
        self._next_start = 0.0
        self._up_at = inf
        self._kill_at = inf
        self._abandon_at = inf

    @property
    def due(self) -> float:
        """When the next `tick` is wanted; infinity if there is nothing to wait for."""
        start = self._next_start if self.state == BACKOFF and not self.has_orphans else inf
        up = self._up_at if self.state == STARTING else inf
        return min(start, up, self._kill_at)

    @property
    def next_start(self) -> float | None:
        """When it is started again, if it waits for that."""
        return self._next_start if self.state == BACKOFF else None

    # What somebody wants

    def start(self, now: float) -> list[str]:
        """It is to run, and at once: earlier deaths are forgotten."""
        self._wanted = True
        if self.state in UP:
            return []
        self._policy.reset()
        self._next_start = now
        return self._go_on(now)

    def stop(self, now: float) -> list[str]:
        """It is not to run."""
        self._wanted = False
        if self.state == FATAL:
            self.state = STOPPED
        return self._end(now) if self.state in UP else self._go_on(now)

    def restart(self, now: float) -> list[str]:
        """It is to end, and to be started at once when it has."""
        if self.state not in UP:
            return self.start(now)
        self._policy.reset()
        self._next_start = now
        return self._end(now)

    def allow(self, now: float) -> list[str]:
        """It may run."""
        self._allowed = True
        return [] if self.state in UP else self._go_on(now)

    def forbid(self, now: float, kill_at: float) -> list[str]:
        """It may not run any more, and not live longer than `kill_at`."""
        self._allowed = False
        actions = self._end(now) if self.state in UP else self._go_on(now)
        if self.alive or self.has_orphans:
            self._kill_at = min(self._kill_at, kill_at)
        return actions

    # What happens

    def started(self, now: float) -> None:
        """It was started."""
        self.state = STARTING
        self.starts += 1
        self.alive = True
        self._up_at = now + UP_AFTER
        self._policy.started(now)

    def failed(self, now: float) -> list[str]:
        """It could not be started."""
        self._count_death(now)
        return self._go_on(now)

    def died(self, now: float, left: bool) -> list[str]:
        """Its leader has died; `has_orphans`: and has left others."""
        self.alive = False
        self.has_orphans = left
        actions = []
        if self.state in UP:
            self._count_death(now)
            if left:
                self._kill_at = now + self._stop_timeout
                actions.append(TERMINATE)
        return actions + self._go_on(now)

    def cleared(self, now: float) -> list[str]:
        """Nothing is left of it."""
        self.has_orphans = False
        return self._go_on(now)

    def tick(self, now: float) -> list[str]:
        """It is late enough for something."""
        if self.state == STARTING and now >= self._up_at:
            self.state = RUNNING
        if now >= self._kill_at:
            return self._kill(now)
        return self._go_on(now) if self.state == BACKOFF else []

    # Inside

    def _count_death(self, now: float) -> None:
        self._next_start = now + self._policy.died(now)
        self.state = BACKOFF
        if self._policy.given_up:
            self._wanted = False
            self.state = FATAL

    def _end(self, now: float) -> list[str]:
        self.state = STOPPING
        self._kill_at = now + self._stop_timeout
        return [TERMINATE]

    def _kill(self, now: float) -> list[str]:
        if now >= self._abandon_at:
            self.alive = self.has_orphans = False
            return [ABANDON, *self._go_on(now)]
        if self._abandon_at == inf:
            self._abandon_at = now + KILL_PATIENCE
        self._kill_at = now + KILL_AGAIN
        return [KILL]

    def _go_on(self, now: float) -> list[str]:
        """What comes next, unless there is still something to be ended."""
        if self.alive or self.has_orphans:
            # STOPPED: it was FATAL until now.
            if self.state == STOPPED or (self.state == BACKOFF and not (self._wanted and self._allowed)):
                self.state = STOPPING
            elif self.state == FATAL and self._wanted:
                self.state = BACKOFF
            return []
        self._kill_at = self._abandon_at = inf
        if not self._wanted:
            self.state = FATAL if self.state == FATAL else STOPPED
        elif not self._allowed:
            self.state = STANDBY
        elif now >= self._next_start:
            self.state = BACKOFF
            return [START]
        else:
            self.state = BACKOFF
        return []
