"""Makes the process of a command first, and tells it later what to become.

    this process --fork--> reader    reads the command line, says what it found, ends
                 --fork--> command   waits for the message, becomes the command

The command's process is there before the lock is asked for, so that the lock can be recorded under its number. The
command line is read in a process of its own, because that takes more memory than all the rest: so neither the process
that stays beside the command nor the one that waits to become it carries that, however long the wait. If this process
ends before it sends the message, the others end too.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from ..errors import CANNOT_EXECUTE, INTERNAL, NOT_FOUND, SIGNALLED, IpclockerError
from .command_line import SHELL, find_program
from .stderr import print_stderr

_MESSAGE = 65_536  # bytes read at a time


class ExecSpec(NamedTuple):
    """The program that the command's process becomes: the words to execute, and in which folder; None: the same."""

    words: list[str]
    folder: str | None = None


Prepare = Callable[[], tuple[dict[str, Any], Optional[ExecSpec]]]


class CommandProcess:
    """The process that becomes the command; `pid` is its number."""

    def __init__(self, tool: str, prepare: Prepare) -> None:
        """Make it, and the reader, which calls `prepare` for the options of this process and what to execute.

        `tool` is the name in messages. `prepare` may end the reader by SystemExit, with a message on stderr.
        Raises IpclockerError if there can be no further process.
        """
        ignores_children = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        if ignores_children:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller's whim; a status is needed here
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._news, news = os.pipe()
        self._reader = _fork()
        if self._reader == 0:
            _read_command_line(prepare, news)
        os.close(news)
        word, self._word = os.pipe()
        self.pid = _fork()
        if self.pid == 0:
            os.close(self._news)
            os.close(self._word)
            if ignores_children:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            _wait_for_word(tool, parent, word)
        os.close(word)

    def options(self) -> dict[str, Any] | None:
        """Return the options that the reader found; None if there is nothing to do, and `exit_code` says how it ended.

        Waits for the reader. To be called once.
        """
        data = _read_all(self._news)
        os.close(self._news)
        if not data:
            self.dismiss()
            return None
        options: dict[str, Any]
        options, order = marshal.loads(data)
        if order is not None:
            self._send(order)
        return options

    def exit_code(self) -> int:
        """Return the exit code of a reader that found nothing; waits for it."""
        status = os.waitpid(self._reader, 0)[1]
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else SIGNALLED + os.WTERMSIG(status)

    def start(self, additions: Mapping[str, str | None]) -> None:
        """Let the command run, with these additions to the caller's environment; what is None is taken from it."""
        self._send(dict(additions))
        os.close(self._word)

    def dismiss(self) -> None:
        """Let the process end: it is not needed."""
        os.close(self._word)

    def _send(self, what: Any) -> None:
        data = marshal.dumps(what)
        data = len(data).to_bytes(4, "big") + data
        with contextlib.suppress(BrokenPipeError):  # it is gone already; its status will tell
            while data:
                data = data[os.write(self._word, data) :]


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        raise IpclockerError(f"cannot make a process for the command: {error.strerror}") from None


def _read_command_line(prepare: Prepare, news: int) -> NoReturn:
    status = INTERNAL
    try:
        options, order = prepare()
        data = marshal.dumps((options, None if order is None else tuple(order)))
        while data:
            data = data[os.write(news, data) :]
        os.close(news)  # not left to the end of this process, which takes its time
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else INTERNAL
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait_for_word(tool: str, parent: int, word: int) -> NoReturn:
    """Do all that can be done before the message comes: what is left is time in which the lock is held for nothing."""
    status = INTERNAL
    try:
        from . import libc  # here, so that the reader need not wait for it

        if libc.die_with_parent(signal.SIGKILL) and os.getppid() != parent:
            os._exit(INTERNAL)  # it ended before it could have taken us with it
        environment = caller_environment()
        restore_signals()
        order = _receive(word)
        if order is not None:
            words, folder = order
            program = find_program(words[0], environment)
            additions = _receive(word)
            if additions is not None:
                environment = {name: value for name, value in {**environment, **additions}.items() if value is not None}
                status = become(tool, program, words, folder, environment)
    finally:
        os._exit(status)


def _receive(word: int) -> Any:
    """Return what was sent next; None at the end."""
    size = os.read(word, 4)
    wanted = int.from_bytes(size, "big")
    data = b""
    while len(data) < wanted:
        piece = os.read(word, wanted - len(data))
        if not piece:
            return None
        data += piece
    return marshal.loads(data) if size else None


def _read_all(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, _MESSAGE), b""))


def become(tool: str, program: str | None, words: list[str], folder: str | None, environment: dict[str, str]) -> int:
    """Execute the command as the caller would have. Returns only if that fails: the exit code, as a shell has it."""
    try:
        if program is None:  # not to be looked for in the current folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if folder is not None:
            os.chdir(folder)
        _execute(program, words, environment)
    except OSError as problem:
        print_stderr(f"{tool}: cannot execute '{words[0]}': {problem.strerror}")
        return NOT_FOUND if problem.errno == errno.ENOENT else CANNOT_EXECUTE


def _execute(program: str, words: list[str], environment: dict[str, str]) -> NoReturn:
    try:
        os.execve(program, words, environment)
    except OSError as problem:
        if problem.errno != errno.ENOEXEC:
            raise
        # A script without a first line that names its interpreter is the shell's, as execvp(3) has it.
        os.execve(SHELL, [SHELL, program, *words[1:]], environment)


def caller_environment() -> dict[str, str]:
    """Return the environment that this program was started with; Python may have set LC_CTYPE in its own copy."""
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {name: value for name, equals, value in pairs if equals and name}


def restore_signals() -> None:
    """Undo what Python does to signals at its start, so that a command finds what the caller had left.

    SIGPIPE and SIGXFSZ are the default again; whether the caller had ignored them is not to be known.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
