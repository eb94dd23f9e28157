"""Supervisor: keeps programs alive from a Python program, after the hydra server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Callable, Optional, Union

from ..errors import UsageError
from ..parameters import check_call, check_text, given, wrong
from ..process.restart_policy import FIRST_PAUSE, GOOD_RUN, LONGEST_PAUSE
from .program_list import Program, by_name, parse_program
from .service import RunContext, SupervisorService
from .settings import SupervisorSettings
from .spawn import CallerContext

STOP_TIMEOUT = 10.0  # seconds
LEASE = 30.0  # seconds: another host goes on so much after a crash; two missed renewals are no loss yet


class Supervisor:
    """Starts the programs that are registered and starts them again whenever they die.

    What it promises about descendants needs Linux. If this process is killed by SIGKILL, the kernel kills the process
    of each program; what those have started is killed by a watchdog process, as far as their environment shows it.
    """

    def __init__(
        self,
        *,
        stop_signal: Union[str, int] = "TERM",
        stop_timeout: float = STOP_TIMEOUT,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        good_run: float = GOOD_RUN,
        give_up: Optional[str] = None,
        fatal_exit: bool = False,
        output: Optional[str] = None,
        output_dir: Optional[str] = None,
        lock: Union[str, Iterable[str], None] = None,
        lease: float = LEASE,
        host: Union[str, Iterable[str], None] = None,
        port: Union[str, int, None] = None,
        path: Optional[str] = None,
    ) -> None:
        """Take the parameters. All times are in seconds.

        stop_signal: what programs are ended by, as "TERM" or 15
        stop_timeout: from that signal until what is left gets SIGKILL
        first_pause, longest_pause: before a program that died is started again: the pauses double from the one to
            the other
        good_run: how long a program has to live for earlier deaths to be forgotten
        give_up: "5/10": a program that died 5 times in 10 seconds is not started again; None: that never happens
        fatal_exit: True if the supervisor ends then, with ProgramFailed
        output: a file for what programs write, in lines behind the time and the program's name; None: stdout
        output_dir: a folder with a file NAME.log for each program's output, as it is; in place of `output`
        lock: the name of a lock, or several of which the first that is free is taken: programs run only while it is
            held
        lease: how long the lock is held at a time
        host, port, path: where the lock server is, as for a Locker

        Raises UsageError for a value that means nothing.
        """
        self._settings = SupervisorSettings(**given(locals()))
        self._programs: list[Program] = []
        self._service: SupervisorService | None = None  # while it runs
        self._is_stopped = False  # and run has not returned since

    def register(self, cmd: str, name: str | None = None) -> None:
        """Add a program to keep alive: a command line, which may begin with `NAME: `.

        Without a name it is called by the base name of the command's first word. If the command has characters that
        mean something to a shell, /bin/sh runs it. Raises UsageError for a command without words, or a name that is
        taken or not allowed.
        """
        check_text("a name", name=name)
        if not isinstance(cmd, str):
            raise wrong("cmd", cmd, "a command line")
        program = parse_program(cmd, name=name)
        by_name([*self._programs, program])
        self._programs.append(program)

    def run(self, exit_func: Optional[Callable[[], object]] = None) -> None:
        """Keep the programs alive until SIGTERM, SIGINT or `stop`; then end them, call `exit_func`, and return.

        SIGHUP ends and restarts them all, SIGUSR1 opens output files again. While it runs, all children of this
        process are asked for their status here. Raises ProgramFailed at the end if a program was given up and
        `fatal_exit` is set, UsageError if output can't be written where it should be, and at once if this is not the
        main thread, which alone has signals.
        """
        check_call("exit_func", exit_func)
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("Supervisor.run was called in a thread: call it in the main thread, which has the signals")
        context = RunContext(CallerContext.here(dict(os.environ)))
        service = SupervisorService(self._settings, by_name(self._programs), lambda: by_name(self._programs), context)
        try:
            service.handle_signals()
            self._service = service
            if not self._is_stopped:  # else it was stopped before there was a service to tell it
                service.run()
        finally:
            service.close()
            self._service = None
            self._is_stopped = False
            if exit_func is not None:
                exit_func()

    def stop(self) -> None:
        """Let `run` end the programs and return, as by SIGTERM. From any thread, and from a signal handler.

        If it does not run yet, it will return without having started a program.
        """
        self._is_stopped = True
        service = self._service
        if service is not None:
            service.loop.call_from_thread(service.stop)


PARAMETERS = frozenset(Supervisor.__init__.__kwdefaults__ or ())  # their names
