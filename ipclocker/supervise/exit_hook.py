"""The command that a supervisor runs when all its programs have ended."""

from __future__ import annotations

import logging
import os
import signal
from typing import Callable

from ..daemon.monitor import how_it_ended
from .managed_program import Shared, StopPolicy
from .process_groups import Leader
from .spawn import start_process

log = logging.getLogger(__name__)
NAME = "exit-hook"


class Hook:
    """Runs once; `done` is called when it has ended or could not be started."""

    def __init__(self, command: str, shared: Shared, rules: StopPolicy, done: Callable[[], None]) -> None:
        self._shared = shared
        self._rules = rules
        self._done = done
        self._leader: Leader | None = None
        mark = f"{shared.mark}/{NAME}"
        try:
            output = shared.output.open(NAME)
            try:
                self._leader = Leader(start_process(command, shared.caller, {}, mark, output), mark)
            finally:
                os.close(output)
        except OSError as error:
            log.error("the exit hook can't be started: %s", error.strerror)
            shared.loop.call_at(shared.loop.now, done)
            return
        shared.groups.began(self._leader)
        log.info("the exit hook runs as process %d", self._leader.pid)

    def end(self) -> None:
        """It is not to be waited for: end it."""
        if self._leader is not None:
            self._shared.groups.signal(self._leader, self._rules.stop_signal)
            self._shared.loop.call_at(self._shared.loop.now + self._rules.stop_timeout, self.kill)

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self._leader is not None:
            self._shared.groups.signal(self._leader, signal.SIGKILL)

    def reaped(self, pid: int, status: int) -> None:
        """A process has ended: it may have been this one."""
        if self._leader is not None and pid == self._leader.pid:
            self._leader = None
            level = logging.INFO if status == 0 else logging.WARNING
            log.log(level, "the exit hook has ended (%s)", how_it_ended(status))
            self._done()
