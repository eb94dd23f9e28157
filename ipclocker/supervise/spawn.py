"""Starts the process of a program: it leads a session of its own, and does not outlive this process."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from ..daemon.monitor import fork_with_signals_blocked
from ..daemon.sd_notify import for_programs
from ..errors import INTERNAL
from ..process import libc
from ..process.command_line import command_line, find_program
from ..process.kill_leftovers import with_marks
from ..process.spawn import become, caller_environment, restore_signals


class CallerContext(NamedTuple):
    """The surroundings that a program finds, as if its caller had started it.

    To be noted before this process changes its own. folder: the current one, None if it was removed; descriptors: how
    many it may have open, the soft and the hard limit.
    """

    environment: dict[str, str]
    folder: str | None
    umask: int
    descriptors: tuple[int, int]

    @classmethod
    def here(cls, environment: dict[str, str] | None = None) -> CallerContext:
        """Return those of this process now; the environment is that of its start, unless one is given.

        Variables that a service manager has set for this process alone are taken out.
        """
        umask = os.umask(0o022)
        os.umask(umask)
        return cls(
            for_programs(caller_environment() if environment is None else environment),
            _folder(),
            umask,
            resource.getrlimit(resource.RLIMIT_NOFILE),
        )


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def start_process(command: str, caller: CallerContext, additions: dict[str, str], mark: str, output: int) -> int:
    """Start a command that leads a session and a group, with stdout and stderr to `output`; return its pid.

    `additions` and the mark go to its environment. If it can't be executed, it writes why, and ends with 126 or 127.
    Raises OSError if there can be no further process.
    """
    environment = with_marks({**caller.environment, **additions}, mark.partition("/")[0], mark)
    words = command_line([command], environment)
    parent = os.getpid()
    # A signal to the new process waits until that has none of our handlers any more.
    pid = fork_with_signals_blocked(signal.valid_signals())
    if pid == 0:
        _become_program(words, environment, caller, output, parent)
    return pid


def _become_program(
    words: Sequence[str], environment: dict[str, str], caller: CallerContext, output: int, parent: int
) -> NoReturn:
    """In the new process. It must wait for no lock of the parent: the thread that holds it does not exist here."""
    status = INTERNAL
    try:
        signal.set_wakeup_fd(-1)  # else what comes before the new program is there wakes the parent
        os.setsid()
        if libc.die_with_parent(signal.SIGKILL) and os.getppid() != parent:
            os._exit(INTERNAL)  # it ended before it could have taken us with it
        null = os.open(os.devnull, os.O_RDONLY)
        for standard, descriptor in enumerate((null, output, output)):
            os.dup2(descriptor, standard)
        resource.setrlimit(resource.RLIMIT_NOFILE, caller.descriptors)
        os.umask(caller.umask)
        _default_signals()
        program = find_program(words[0], environment)
        status = become("supervise", program, list(words), caller.folder, environment)
    finally:
        os._exit(status)


def _default_signals() -> None:
    """Undo all that this program has done to its signals."""
    restore_signals()
    for number in (signal.SIGTTOU, signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
