"""Supervisor: keeps programs alive from a Python program, after the hydra server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

from .program_list import Program, by_name, parse_program
from .service import RunContext, SupervisorService
from .settings import SupervisorSettings
from .spawn import CallerContext

if TYPE_CHECKING:
    from typing import Unpack

    from .settings import SupervisorParameters


class Supervisor:
    """Starts the programs that are registered and starts them again whenever they die.

    What it promises about descendants needs Linux. If this process is killed by SIGKILL, the kernel kills the process
    of each program; what those have started is killed by a watchdog process, as far as their environment shows it.
    """

    def __init__(self, **parameters: Unpack[SupervisorParameters]) -> None:
        """Take the parameters that SupervisorParameters (settings.py) explains.

        Raises UsageError for a value that means nothing, TypeError for an unknown parameter.
        """
        self._settings = SupervisorSettings(**parameters)
        self._programs: list[Program] = []

    def register(self, cmd: str, name: str | None = None) -> None:
        """Add a program to keep alive: a command line, which may begin with `NAME: `.

        Without a name it is called by the base name of the command's first word. If the command has characters that
        mean something to a shell, /bin/sh runs it. Raises UsageError for a command without words, or a name that is
        taken or not allowed.
        """
        program = parse_program(cmd, name=name)
        by_name([*self._programs, program])
        self._programs.append(program)

    def run(self, exit_func: Callable[[], object] | None = None) -> None:
        """Keep the programs alive until SIGTERM or SIGINT; then end them, call `exit_func`, and return.

        SIGHUP ends and restarts them all, SIGUSR1 opens output files again. To be called in the main thread; while it
        runs, all children of this process are asked for their status here. Raises ProgramFailed at the end if a
        program was given up and `fatal_exit` is set, UsageError if output can't be written where it should be.
        """
        context = RunContext(CallerContext.here(dict(os.environ)))
        service = SupervisorService(self._settings, by_name(self._programs), lambda: by_name(self._programs), context)
        try:
            service.handle_signals()
            service.run()
        finally:
            service.close()
            if exit_func is not None:
                exit_func()
