"""Runs a supervisor as its command line says: in the background or the foreground, below a monitor.

    monitor --fork--> supervisor --fork--> programs

If the supervisor is killed, the kernel kills the programs and the monitor what those have started; then the monitor
starts another one, in the foreground it ends. If the monitor is killed, the supervisor notices it by a pipe of which
the monitor had the other end, the *lifeline*, and kills all programs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
from collections.abc import Sequence

from ..daemon import daemonize
from ..daemon.inheritance import Inheritance
from ..daemon.monitor import MonitorOptions
from ..errors import IpclockerError, UsageError
from ..process.kill_leftovers import sweep
from .control_socket import control_path
from .output.nonblocking_writer import keep_log_from_blocking
from .program_list import Program, by_name, parse_file, parse_program
from .service import Programs, RunContext, SupervisorService
from .settings import SupervisorSettings
from .spawn import CallerContext
from .stop_record import StopRecord

log = logging.getLogger(__name__)
_LARGEST_FILE = 1 << 20  # bytes: thousands of programs; what is longer is another file, given by mistake


class ProgramSource:
    """The programs of a command line and of a file, which may be read again."""

    def __init__(self, programs: Sequence[str], path: str | None) -> None:
        """Read the programs and the file at `path`. Raises UsageError if there is a mistake, or no program at all."""
        self._given = [parse_program(text, f"--program '{text}'") for text in programs]
        self._path = None if path is None else os.path.abspath(path)
        self.first = self._together([] if path is None else _read(path))
        if not self.first:
            where = f"there is none in {path}" if path is not None else "give --program or --file"
            raise UsageError(f"no program to keep alive: {where}")

    def read(self) -> Programs:
        """Return the programs, after the file was read again. Raises UsageError if it can't be, or has a mistake."""
        if self._path is None:
            return self.first
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.stat(self._path).st_mode):
                raise UsageError(f"{self._path} is no regular file, and can be read only once")
        return self._together(_read(self._path))

    def latest(self) -> Programs:
        """Return the programs that there are now; those of the start if the file can't be read."""
        try:
            return self.read()
        except IpclockerError as error:
            log.error("%s; it is the programs of the start that are kept alive", error)
            return self.first

    def _together(self, read: list[Program]) -> Programs:
        return by_name([*self._given, *read])


def run_supervisor(
    settings: SupervisorSettings, source: ProgramSource, exit_hook: str | None, daemon: daemonize.DaemonOptions
) -> int:
    """Run a supervisor until it ends or, in the background, until it has started; return the exit code."""
    caller = CallerContext.here()
    lifeline, held = os.pipe()  # the monitor keeps the other end, by not closing it
    context = RunContext(
        caller,
        output_to_log=not daemon.foreground,
        control=control_path(daemon.pid_file),
        control_matters=daemon.pid_file is not None,
        lifeline=lifeline,
        exit_hook=exit_hook,
        stop_record=StopRecord(),
        alone=True,
    )

    def start(inheritance: Inheritance) -> SupervisorService:
        os.close(held)
        # A group of its own: signals to the monitor's group, by a terminal or by kill, are passed on from there.
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a terminal may ask that of other groups than its own
        if daemon.foreground:
            keep_log_from_blocking()
        return SupervisorService(settings, source.latest(), source.read, context)

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the supervisor takes it
    monitoring = MonitorOptions(signals=(signal.SIGUSR1,), patient=True, sweep=sweep)
    return daemonize.run(start, "supervise", daemon, monitoring)


def _read(path: str) -> list[Program]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"the file of programs {path} can't be read: {error.strerror}") from None
    if len(text) > _LARGEST_FILE:
        raise UsageError(f"the file of programs {path} is longer than {_LARGEST_FILE} bytes: is it the right one?")
    return parse_file(text, path)
