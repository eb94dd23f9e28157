"""Runs a command when all programs of a supervisor have ended."""

from __future__ import annotations

import logging
import signal
from typing import Callable

from ..process.wait import how_it_ended
from .managed_program import SharedResources, StopPolicy
from .process_groups import GroupLeader

log = logging.getLogger(__name__)
NAME = "exit-hook"  # its output is collected under it, as a program's under its name


class ExitHook:
    """One run of the exit hook, from now on."""

    def __init__(
        self, command: str, shared: SharedResources, stop_policy: StopPolicy, done: Callable[[], None]
    ) -> None:
        """Start it. `done` is called when it has ended or could not be started, never before this returns."""
        self._shared = shared
        self._stop_policy = stop_policy
        self._done = done
        self._leader: GroupLeader | None = None
        try:
            self._leader = shared.start(NAME, command, {})
        except OSError as error:
            log.error("the exit hook can't be started: %s", error.strerror)
            shared.loop.call_at(shared.loop.now, done)
            return
        log.info("the exit hook runs as process %d", self._leader.pid)

    def end(self) -> None:
        """End it: send the stop signal, and SIGKILL after the stop timeout."""
        if self._leader is not None:
            self._shared.groups.signal(self._leader, self._stop_policy.stop_signal)
            self._shared.loop.call_at(self._shared.loop.now + self._stop_policy.stop_timeout, self.kill)

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self._leader is not None:
            self._shared.groups.signal(self._leader, signal.SIGKILL)

    def reaped(self, pid: int, status: int) -> None:
        """Take note that a child has ended, with this status of waitpid(2): it may have been this one."""
        if self._leader is not None and pid == self._leader.pid:
            self._leader = None
            level = logging.INFO if status == 0 else logging.WARNING
            log.log(level, "the exit hook has ended (%s)", how_it_ended(status))
            self._done()
