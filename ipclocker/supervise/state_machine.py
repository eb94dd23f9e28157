"""The states of one program, and what leads from one to another (pure: events and the time in, actions out).

             START                up for a second
    STOPPED ------> STARTING -----------------------> RUNNING
                      ^   |  exits                       |  exits
                START |   v                              |
                     BACKOFF <---------------------------'    exits too often: FATAL

    STARTING, RUNNING -- STOP, RESTART, FORBID --> STOPPING -- all gone --> STOPPED, STARTING or STANDBY

A program is one process, its leader, and all that the leader has started. When the leader has exited, what it has
left behind, its orphans, is ended too. Only when nothing is left the program is started again: so it never runs twice.
STANDBY is for a program that is to run but may not: another host holds the lock.

TRANSITIONS is the whole machine. An event that has no place in the row of a state raises UnexpectedEvent.
"""

from __future__ import annotations

from math import inf

from ..process.restart_policy import RestartPolicy

# The states that are shown to people.
STOPPED = "STOPPED"  # nobody wants it to run
STANDBY = "STANDBY"  # it is to run, but may not
STARTING = "STARTING"  # it runs, but for less than UP_AFTER
RUNNING = "RUNNING"
BACKOFF = "BACKOFF"  # it exited by itself, and is started again after a pause
STOPPING = "STOPPING"  # it was told to end
FATAL = "FATAL"  # it exited too often, and is not started again by itself

# States that are shown as one of those.
LAUNCHING = "BACKOFF, about to start"  # LAUNCH was asked for and not answered yet
BACKOFF_ORPHANS = "BACKOFF, with orphans"  # the leader is gone, and what it has left behind is being ended
STOPPING_ORPHANS = "STOPPING, with orphans"
FATAL_ORPHANS = "FATAL, with orphans"

# Targets that depend on the state before and on what is wanted.
SAME = "the same state"
NEXT = "the state that is wanted, now that no process is left"  # ProgramStateMachine._next

UP = frozenset({STARTING, RUNNING})
PASSING = frozenset({STARTING, STOPPING})  # these become others in a bounded time
_ALIVE = frozenset({STARTING, RUNNING, STOPPING})
_WITH_ORPHANS = frozenset({BACKOFF_ORPHANS, STOPPING_ORPHANS, FATAL_ORPHANS})

# Events: what somebody wants. Each is possible in each state but LAUNCHING, which ends before anything else comes in.
START = "start"  # it is to run, at once
STOP = "stop"  # it is not to run
RESTART = "restart"  # it is to end, and then to run at once
ALLOW = "allow"  # it may run
FORBID = "forbid"  # it may not run any more
# Events: what has happened.
STARTED = "started"
START_FAILED = "failed to start"
EXITED = "exited"  # the leader has, and nothing is left
EXITED_WITH_ORPHANS = "exited with orphans"
ORPHANS_GONE = "orphans are gone"
TOO_MANY_EXITS = "exited too often"
# Events: what time has come.
UP_LONG_ENOUGH = "up long enough"
PAUSE_OVER = "pause is over"
STOP_TIMEOUT = "stop timeout"
KILL_TIMEOUT = "kill timeout"

# Actions for the caller. LAUNCH, which is always the last, is answered by STARTED or START_FAILED before all else.
LAUNCH = "launch"
TERMINATE = "terminate"  # the stop signal to all processes of the program
KILL = "kill"  # SIGKILL to all processes of the program
ABANDON = "abandon"  # it can't be ended: go on as if it were gone
# Actions that the machine does itself.
_NOTE_START = "note the start"
_COUNT_EXIT = "count the exit"  # the pause before the next start grows with each
_RESET_EXITS = "reset the exits"  # the next start is without a pause

Row = dict[str, tuple[str, ...]]  # for each possible event the target, and the actions
_GONE: Row = {
    START: (NEXT, _RESET_EXITS),
    STOP: (NEXT,),
    RESTART: (NEXT, _RESET_EXITS),
    ALLOW: (NEXT,),
    FORBID: (NEXT,),
}
_UP: Row = {
    START: (SAME,),
    STOP: (STOPPING, TERMINATE),
    RESTART: (STOPPING, _RESET_EXITS, TERMINATE),
    ALLOW: (SAME,),
    FORBID: (STOPPING, TERMINATE),
    EXITED: (BACKOFF, _COUNT_EXIT),
    EXITED_WITH_ORPHANS: (BACKOFF_ORPHANS, _COUNT_EXIT, TERMINATE),
}
_ENDING: Row = {
    START: (SAME, _RESET_EXITS),
    STOP: (SAME,),
    RESTART: (SAME, _RESET_EXITS),
    ALLOW: (SAME,),
    FORBID: (SAME,),
    STOP_TIMEOUT: (SAME, KILL),
    KILL_TIMEOUT: (NEXT, ABANDON),
}
TRANSITIONS: dict[str, Row] = {
    STOPPED: _GONE,
    STANDBY: _GONE,
    BACKOFF: {**_GONE, PAUSE_OVER: (NEXT,), TOO_MANY_EXITS: (FATAL,)},
    FATAL: {**_GONE, ALLOW: (SAME,), FORBID: (SAME,)},
    LAUNCHING: {STARTED: (STARTING, _NOTE_START), START_FAILED: (BACKOFF, _COUNT_EXIT)},
    STARTING: {**_UP, UP_LONG_ENOUGH: (RUNNING,)},
    RUNNING: _UP,
    STOPPING: {**_ENDING, EXITED: (NEXT,), EXITED_WITH_ORPHANS: (STOPPING_ORPHANS,)},
    STOPPING_ORPHANS: {**_ENDING, ORPHANS_GONE: (NEXT,)},
    BACKOFF_ORPHANS: {
        **_ENDING,
        STOP: (STOPPING_ORPHANS,),
        FORBID: (STOPPING_ORPHANS,),
        ORPHANS_GONE: (NEXT,),
        TOO_MANY_EXITS: (FATAL_ORPHANS,),
    },
    FATAL_ORPHANS: {
        **_ENDING,
        START: (BACKOFF_ORPHANS, _RESET_EXITS),
        STOP: (STOPPING_ORPHANS,),
        RESTART: (BACKOFF_ORPHANS, _RESET_EXITS),
        ORPHANS_GONE: (FATAL,),
        KILL_TIMEOUT: (FATAL, ABANDON),
    },
}
# What an event says about what is wanted and what is allowed, whatever the state.
_WANTED = {START: True, RESTART: True, STOP: False}
_ALLOWED = {ALLOW: True, FORBID: False}

UP_AFTER = 1.0  # seconds from a start until it counts as running: one that can't run mostly exits sooner
KILL_AGAIN = 0.2  # seconds between two SIGKILLs: a process that was started meanwhile has not got the last one
KILL_PATIENCE = 5.0  # seconds of killing until what is left is given up: it is stuck in the kernel


class UnexpectedEvent(Exception):
    """An event that has no place in a program's state: a fault of this program, never of its user."""


class ProgramStateMachine:
    """The state of one program. All times are seconds on one clock that does not go back, as the loop's."""

    def __init__(self, policy: RestartPolicy, *, stop_timeout: float, allowed: bool = True) -> None:
        """Begin as STOPPED.

        `policy` gives the pauses before a start. `stop_timeout`: seconds from the stop signal to SIGKILL.
        `allowed`: False if the program may not run until ALLOW.
        """
        self.starts = 0  # how often it was started
        self._state = STOPPED
        self._policy = policy
        self._stop_timeout = stop_timeout
        self.wanted = False  # whether it is to run, of which the state may know nothing yet
        self._allowed = allowed
        self._next_start = 0.0
        self._up_at = inf
        self._kill_at = inf
        self._abandon_at = inf

    @property
    def state(self) -> str:
        """The state that is shown to people, as "RUNNING"."""
        return self._state.partition(",")[0]

    @property
    def alive(self) -> bool:
        """True while the leader lives."""
        return self._state in _ALIVE

    @property
    def has_orphans(self) -> bool:
        """True while the leader is gone and has left others behind."""
        return self._state in _WITH_ORPHANS

    @property
    def due(self) -> float:
        """The time of the next `tick`; infinity if there is nothing to wait for."""
        return {STARTING: self._up_at, BACKOFF: self._next_start}.get(self._state, self._kill_at)

    @property
    def next_start(self) -> float | None:
        """The time of the next start; None if it does not wait for one."""
        return self._next_start if self.state == BACKOFF else None

    def handle(self, event: str, now: float, kill_at: float = inf) -> list[str]:
        """Change the state as the event says; return the actions that the caller is to do now, in this order.

        `kill_at`: with FORBID, the latest time for SIGKILL. Raises UnexpectedEvent if the event has no place in the
        state; nothing has changed then.
        """
        if event not in TRANSITIONS[self._state]:
            raise UnexpectedEvent(f"the event '{event}' has no place in the state '{self._state}'")
        target, *actions = TRANSITIONS[self._state][event]
        self.wanted = _WANTED.get(event, self.wanted)
        self._allowed = _ALLOWED.get(event, self._allowed)
        for action in actions:
            self._note(action, now)
        if target == NEXT:
            target = self._next(now)
        if target == LAUNCHING:
            actions.append(LAUNCH)
        if target != SAME:
            self._state = target
        if self.alive or self.has_orphans:
            self._kill_at = min(self._kill_at, kill_at)
        else:
            self._kill_at = self._abandon_at = inf
        if _COUNT_EXIT in actions and self._policy.given_up:
            self.handle(TOO_MANY_EXITS, now)
        return [action for action in actions if action in (LAUNCH, TERMINATE, KILL, ABANDON)]

    def tick(self, now: float) -> list[str]:
        """Handle the event of the time that has come, if `due` is not later than `now`."""
        if now < self.due:
            return []
        timeout = KILL_TIMEOUT if now >= self._abandon_at else STOP_TIMEOUT
        return self.handle({STARTING: UP_LONG_ENOUGH, BACKOFF: PAUSE_OVER}.get(self._state, timeout), now)

    def _note(self, action: str, now: float) -> None:
        if action == _NOTE_START:
            self.starts += 1
            self._up_at = now + UP_AFTER
            self._policy.started(now)
        elif action == _COUNT_EXIT:
            self._next_start = now + self._policy.died(now)
        elif action == _RESET_EXITS:
            self._policy.reset()
            self._next_start = now
        elif action == TERMINATE:
            self._kill_at = now + self._stop_timeout
        elif action == KILL:
            self._kill_at = now + KILL_AGAIN
            self._abandon_at = min(self._abandon_at, now + KILL_PATIENCE)

    def _next(self, now: float) -> str:
        if not self.wanted:
            return STOPPED
        if not self._allowed:
            return STANDBY
        return LAUNCHING if now >= self._next_start else BACKOFF
