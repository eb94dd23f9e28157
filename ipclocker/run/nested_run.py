"""Runs a command under the lock of an outer run, and ends it when that lock is not held any more.

Nothing is asked for, and nothing is given back: the outer run does both. What ends a command that has lost its lock
reaches this one, too, since it is below the outer command. But an outer lockersh that was killed, or an outer command
that has ended and left this one behind, ends nothing. So two things are watched: the process that the lock is recorded
under, if it is above this one, and every second the server is asked whether the grant still stands. While the server
does not answer, the command goes on, as the outer one does.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from functools import partial
from typing import Callable

from ..errors import LOST
from ..lock.grant_variables import grant_variables
from ..net.loop import Loop
from ..net.text import decode_text
from ..process.exit_watcher import ExitWatcher
from ..process.identity import identify
from ..process.signal_names import signal_name
from ..process.spawn import CommandProcess
from ..process.termination import KillPolicy, Termination
from .foreground import Foreground
from .on_lost_hook import OnLostHook
from .options import GRACE, KILL, WARN, RunOptions
from .outer_runs import OuterGrant, OuterRuns

_CHECK_EVERY = 1.0  # seconds: a break is rare, and a question costs the server little


class NestedRun:
    """One run of a command under grants of outer runs."""

    def __init__(
        self,
        child: CommandProcess,
        foreground: Foreground,
        outer: OuterRuns,
        grants: Sequence[OuterGrant],
        options: RunOptions,
        report: Callable[[str], None],
    ) -> None:
        """Begin to watch the grants. `report` is called with messages for people."""
        self._foreground = foreground
        self._outer = outer
        self._grants = grants
        self._options = options
        self._report = report
        self._variables = grant_variables([(grant.name, grant.token) for grant in grants], outer.space)
        self._command = identify(child.pid)
        self._hook: OnLostHook | None = None
        self._loop = Loop()
        watcher = ExitWatcher(self._loop)
        policy = KillPolicy(options.lost_signal, tree=True, grace=GRACE)
        self._termination = Termination(self._loop, watcher, policy, report)
        for grant in grants:
            if grant.process is not None and grant.process.pid != os.getpid():
                watcher.add(grant.process, partial(self._lose, "the process that holds it has ended"))
        self._check_later()

    def to_the_end(self) -> int:
        """Let the command run; return the exit code, if this process does not end as the command did."""
        self._foreground.start(self._variables)
        self._foreground.run(self._step)
        while self._termination.is_waiting:  # for what the command has left
            self._step()
        if self._hook is not None:
            self._hook.wait(lambda until: (self._foreground.wait(None, 0, until), None)[1])
        if not self._termination.begun:
            self._foreground.end_like_command()
        return LOST

    def _step(self) -> None:
        self._foreground.wait(self._loop, select.POLLIN, self._loop.next_timer)
        self._loop.turn(0.0)

    def _check_later(self) -> None:
        self._loop.call_at(time.monotonic() + _CHECK_EVERY, self._check)

    def _check(self) -> None:
        if self._termination.begun:
            return
        if self._outer.still_hold(self._grants):
            self._check_later()
        else:
            self._lose("the server does not know of its grant any more")

    def _lose(self, why: str) -> None:
        if self._termination.begun:
            return
        self._termination.begin(self._command)
        names = ", ".join(decode_text(grant.name) for grant in self._grants)
        signal = signal_name(self._options.lost_signal)
        self._report(f"lock {names} of the outer run was lost while the command runs: {why}; it gets SIG{signal}")
        if self._options.on_lost not in (WARN, KILL):
            additions = {name: value for name, value in self._variables.items() if value is not None}
            self._hook = OnLostHook(self._options.on_lost, additions, self._report)
