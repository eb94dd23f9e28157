"""A supervisor at work: programs, signals, the control socket and the cluster lock, on one event loop.

What ends it, and how:

    SIGTERM, SIGINT         all programs are ended, then the exit hook runs; another one ends the hook
    a program is FATAL      the same, if that was asked for, and then it ends with ProgramFailed
    its monitor is gone     all programs are killed at once, as if this process had been killed

SIGHUP reads the list of programs again and restarts them, SIGUSR1 opens output files again.
"""

from __future__ import annotations

import logging
import os
import random
from functools import partial
from math import inf
from signal import SIGCHLD, SIGUSR1
from typing import Any, Callable, NamedTuple, Optional

from ..daemon.loop_server import LoopServer
from ..errors import IpclockerError, ProgramFailed, UsageError
from ..lock.grant_variables import grant_variables
from ..net.address import LONGEST_PATH
from ..net.loop import READ, Loop
from ..net.text import encode_text
from ..process import libc
from ..process.identity import identify
from ..process.kill_leftovers import kill_processes_of, manager_mark, sweep
from ..process.watchdog import Watchdog
from .control_socket import ControlServer
from .exit_hook import ExitHook
from .managed_program import ManagedProgram, SharedResources
from .output.collector import OutputCollector
from .output.sinks import MakeSink, to_file, to_files, to_log, to_stdout
from .process_groups import ProcessGroups
from .program_list import Program
from .program_set import ProgramSet
from .settings import SupervisorSettings
from .spawn import CallerContext
from .state_machine import FATAL, PASSING
from .stop_record import StopRecord

log = logging.getLogger(__name__)
Programs = dict[str, Program]


class RunContext(NamedTuple):
    """The surroundings of a supervisor, beside its settings.

    caller: what its programs find as if their caller had started them
    output_to_log: True if output goes to the log, unless the settings name another place
    control: the path of the control socket; None: there is none
    control_matters: True if it is an error when that socket can't be had
    lifeline: a descriptor that can be read when the monitor is gone; None: there is no monitor
    exit_hook: a command to be run at the end
    stop_record: where the programs that were stopped are noted for the supervisor after this one; None: nowhere
    alone: True if all children of this process are the supervisor's, so that none shall be left at the end
    """

    caller: CallerContext
    output_to_log: bool = False
    control: Optional[str] = None
    control_matters: bool = True
    lifeline: Optional[int] = None
    exit_hook: Optional[str] = None
    stop_record: Optional[StopRecord] = None
    alone: bool = False


class SupervisorService(LoopServer):
    """Keeps programs alive from `run` until it is told to end."""

    def __init__(
        self, settings: SupervisorSettings, programs: Programs, read: Callable[[], Programs], context: RunContext
    ) -> None:
        """`read` returns the list of programs when that is read again.

        Raises UsageError if the output or the control socket can't be had.
        """
        self._settings = settings
        self._programs = programs
        self._read = read
        self._context = context
        super().__init__(loop := Loop())
        self._hook: ExitHook | None = None  # while it runs
        self._hook_began = False
        self._failure: IpclockerError | None = None
        self._lock: Any = None
        self._control: ControlServer | None = None
        self._watchdog: Watchdog | None = None
        self._started_at = loop.now
        self._this = identify(os.getpid())
        self._mark = manager_mark(self._this)
        groups = ProcessGroups(loop)
        self._output = OutputCollector(loop, self._output_sink())
        self._shared = SharedResources(loop, groups, self._output, context.caller, self._mark)
        self._program_set = ProgramSet(
            self._shared,
            settings.new_policy,
            settings.stop_policy,
            self._changed,
            self._reaped,
            allowed=settings.lock is None,
        )
        try:
            self._listen()
        except BaseException:
            self.close()
            raise

    def handle_signals(self) -> None:
        """Take the signals above from now on. In the main thread only."""
        super().handle_signals()
        self._loop.on_signal(SIGUSR1, self._output.reopen)
        self._loop.on_signal(SIGCHLD, self._reap)

    def describe(self) -> str:
        """Return the list of programs and the control socket, for the log."""
        programs = f"keeping alive {', '.join(self._programs) or 'nothing'}"
        control = f", control socket {self._control.path}" if self._control is not None else ""
        return programs + control

    def run(self) -> bool:
        """Keep the programs alive until told to end; return False, since it is never to be started again.

        Raises ProgramFailed, and IpclockerError if the monitor has gone or there can be no further process.
        """
        if self._context.lifeline is not None:
            self._loop.watch(self._context.lifeline, READ, self._monitor_gone)
        else:  # somebody else has to end what is left if this process is killed
            self._watchdog = Watchdog(inf, self._kill_programs)
            self._loop.watch(self._watchdog.fileno(), READ, self._watchdog_gone)
        libc.adopt_orphans()
        record = self._context.stop_record
        self._program_set.replace(self._programs, record.read() if record is not None else ())
        if self._settings.lock is not None:
            from .cluster_lock import ClusterLock  # only here: most do without

            parameters = {**self._settings.lock, "command": f"supervise {' '.join(self._programs)}"}
            self._lock = ClusterLock(self._loop, parameters, self, random.random, self._kill_programs)
        self._loop.run()
        if self._context.alone:
            sweep()
        if self._failure is not None:
            raise self._failure
        return False

    def _close(self) -> None:
        """Give back sockets, files and signal handlers."""
        if self._control is not None:
            self._control.close()
        if self._lock is not None:
            self._lock.close()
        self._output.close()
        super()._close()
        if self._watchdog is not None:
            self._watchdog.disarm()
        libc.adopt_orphans(False)

    def stop(self) -> None:
        """End all programs, and then `run`. A second call ends the exit hook."""
        if self._hook is not None:
            self._hook.end()
        elif not self._ending:
            self._ending = True
            self._program_set.stop()
            self._go_on()

    def reload(self) -> None:
        """Read the list of programs again: start new ones, restart others but for stopped ones, end removed ones."""
        if self._ending:
            return
        try:
            programs = self._read()
        except IpclockerError as error:
            log.error("%s; the programs stay as they are", error)
            return
        self._programs = programs
        log.info("the programs are restarted: %s", ", ".join(programs) or "none")
        self._program_set.replace(programs)
        self._note_stopped()

    # For the control socket

    def describe_to(self, names: list[str]) -> dict[str, Any]:
        """Return the state of these programs, or of all. Raises UsageError for an unknown name."""
        return {
            "supervisor": {
                "pid": os.getpid(),
                "uptime": round(self._loop.now - self._started_at, 3),
                "lock": self._describe_lock(),
            },
            "programs": [program.describe() for program in self._program_set.find(names)],
        }

    def tell(self, command: str, names: list[str]) -> list[str]:
        """Start, stop or restart these programs, or all; return their names.

        Raises UsageError for an unknown name, and while the supervisor ends.
        """
        if self._ending:
            raise UsageError(f"the supervisor ends, and does not {command} programs any more")
        programs = self._program_set.find(names)
        log.info("told to %s %s", command, ", ".join(program.name for program in programs) or "nothing")
        for program in programs:
            program.handle(command)  # START, STOP or RESTART
        self._note_stopped()
        return [program.name for program in programs]

    def are_settled(self, names: list[str]) -> bool:
        """Tell if none of these programs is in a passing state."""
        return not any(program.state in PASSING for program in self._program_set if program.name in names)

    # As the listener of the cluster lock

    def granted(self, name: str, token: int | None) -> None:
        """Let the programs run: the lock is held."""
        variables = grant_variables([(encode_text(name), token)], space="")  # it is not told of the server
        self._program_set.allow({name: value for name, value in variables.items() if value is not None})

    def lost(self, kill_at: float) -> None:
        """End the programs and the exit hook: the lock is lost, and all has to be dead at `kill_at`."""
        self._program_set.forbid(kill_at)
        if self._hook is not None:
            self._hook.end()
            self._loop.call_at(kill_at, self._hook.kill)
        self._go_on()

    def given_back(self) -> None:
        """Return from `run`: all is done."""
        self._loop.stop()

    # What happens

    def _note_stopped(self) -> None:
        if self._context.stop_record is not None:
            self._context.stop_record.write(self._program_set.stopped)

    def _reap(self) -> None:
        self._program_set.reap()
        self._go_on()

    def _reaped(self, pid: int, status: int) -> None:
        if self._hook is not None:
            self._hook.reaped(pid, status)

    def _changed(self, program: ManagedProgram) -> None:
        if program.state == FATAL and self._settings.fatal_exit and not self._ending:
            self._failure = ProgramFailed(f"the program '{program.name}' died too often ({self._settings.give_up})")
            self._loop.call_at(self._loop.now, self.stop)
        if self._control is not None:
            self._control.changed()

    def _go_on(self) -> None:
        """Do the next step of the end, or ask for a lost lock again, if nothing runs any more."""
        if not self._program_set.are_gone or self._hook is not None:
            return
        if not self._ending:
            if self._lock is not None:
                self._lock.ask_again()
        elif self._context.exit_hook is not None and not self._hook_began:
            self._hook_began = True
            self._hook = ExitHook(self._context.exit_hook, self._shared, self._settings.stop_policy, self._hook_done)
        elif self._lock is not None:
            self._lock.give_back()
        else:
            self._loop.stop()

    def _hook_done(self) -> None:
        self._hook = None
        self._go_on()

    def _monitor_gone(self, events: int) -> None:
        """Kill all programs: the monitor was killed, which is meant to end all."""
        log.error("the guardian process is gone: all programs are killed")
        self._loop.unwatch(self._context.lifeline)  # type: ignore[arg-type]
        self._program_set.kill()
        sweep()
        self._failure = IpclockerError("its guardian was killed")
        self._loop.stop()

    def _watchdog_gone(self, events: int) -> None:
        """Start another watchdog, since the one that there was has been killed."""
        assert self._watchdog is not None
        self._loop.unwatch(self._watchdog.fileno())
        try:
            self._watchdog.restart(inf)
        except IpclockerError as error:
            log.error("the watchdog process was killed, and there can't be another one: all programs are killed")
            self._program_set.kill()
            self._kill_programs()
            self._failure = error
            self._loop.stop()
        else:
            log.warning("the watchdog process was killed: another one is there")
            self._loop.watch(self._watchdog.fileno(), READ, self._watchdog_gone)

    def _listen(self) -> None:
        if self._context.control is None:
            return
        try:
            self._control = ControlServer(self._loop, self._context.control, self)
        except UsageError as error:
            # A pid file may have a longer name than a socket; that is no reason not to keep programs alive.
            if self._context.control_matters and len(os.fsencode(self._context.control)) <= LONGEST_PATH:
                raise
            log.warning("%s; this supervisor can't be asked for its status", error)

    def _kill_programs(self) -> None:
        """For a watchdog: called in another process, when this one can't."""
        kill_processes_of(self._this, self._mark)

    def _describe_lock(self) -> dict[str, Any] | None:
        if self._settings.lock is None:
            return None
        names = self._settings.lock["lock"]
        return {
            "wanted": [names] if isinstance(names, str) else list(names),
            "held": (self._lock.name or None) if self._lock is not None else None,
            "token": self._lock.token if self._lock is not None else None,
        }

    def _output_sink(self) -> MakeSink:
        if self._settings.output_dir is not None:
            return partial(to_files, self._settings.output_dir)
        if self._settings.output is not None:
            return partial(to_file, self._settings.output)
        return to_log if self._context.output_to_log else to_stdout
