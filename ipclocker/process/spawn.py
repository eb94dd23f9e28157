"""The command's process, made first and told later that it may become the command.

    this process --fork--> command   makes itself ready, waits for the word, becomes the command

The process is there before the lock is asked for, so that the lock can be recorded under its number. If this process
ends before it gives the word, the other ends too.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, NoReturn

from ..errors import CANNOT_EXECUTE, INTERNAL, NOT_FOUND, OK, SIGNALLED, IpclockerError
from .command_line import SHELL, command_line, find_program, shell_remedy
from .stderr import print_stderr

_MESSAGE = 65_536  # bytes read at a time: what a pipe holds


class ExecSpec(NamedTuple):
    """The program that the command's process becomes.

    words: the words of a command line, which a shell gets if they need one (command_line.py)
    exact: execute them as they are
    folder: where to go first; if that can't be, this is said, and the command runs where it is
    """

    words: list[str]
    exact: bool = False
    folder: str | None = None


class CommandProcess:
    """The process that becomes the command; `pid` is its number."""

    def __init__(self, tool: str, spec: ExecSpec) -> None:
        """Make it; `tool` is the name in messages. Raises IpclockerError if there can be no further process."""
        ignores_children = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        if ignores_children:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller's whim; a status is needed here
        parent = os.getpid()
        word, self._word = os.pipe()
        self.pid = _fork()
        if self.pid == 0:
            os.close(self._word)
            if ignores_children:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            _wait_for_word(tool, spec, parent, word)
        os.close(word)

    def start(self, additions: Mapping[str, str | None]) -> None:
        """Let the command run, with these additions to the caller's environment; what is None is taken from it."""
        data = marshal.dumps(dict(additions))
        data = len(data).to_bytes(4, "big") + data
        with contextlib.suppress(BrokenPipeError):  # it is gone already; its status will tell
            _write_all(self._word, data)
        os.close(self._word)

    def dismiss(self) -> None:
        """Let the process end: it is not needed."""
        os.close(self._word)


def call_in_child(call: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call in a process of its own, which takes all with it that the call needs; the result, if marshal knows its type.

    Raises IpclockerError if there can be no further process. What the call raises is raised in that process only,
    which is to end by it; here SystemExit is raised with its exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller may have it ignored; a status is needed here
    answer, writer = os.pipe()
    pid = _fork()
    if pid == 0:
        os.close(answer)
        _write_all(writer, marshal.dumps(call(*arguments)))
        os._exit(OK)
    os.close(writer)
    data = b"".join(iter(lambda: os.read(answer, _MESSAGE), b""))
    os.close(answer)
    status = os.waitpid(pid, 0)[1]
    signal.signal(signal.SIGCHLD, handler)
    if status or not data:
        raise SystemExit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else SIGNALLED + os.WTERMSIG(status))
    result: dict[str, Any] = marshal.loads(data)
    return result


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        raise IpclockerError(f"cannot make a process for the command: {error.strerror}") from None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _wait_for_word(tool: str, spec: ExecSpec, parent: int, word: int) -> NoReturn:
    """Do all that can be done before the word comes: what is left is time in which the lock is held for nothing."""
    status = INTERNAL
    try:
        from . import libc  # here, so that the other process need not wait for it

        if libc.die_with_parent(signal.SIGKILL) and os.getppid() != parent:
            os._exit(INTERNAL)  # it ended before it could have taken us with it
        environment = caller_environment()
        restore_signals()
        if spec.folder is not None:
            _go_to(tool, spec.folder, environment)
        words = command_line(spec.words, environment, spec.exact)
        program = find_program(words[0], environment)
        additions = _receive(word)
        if additions is not None:
            environment = {name: value for name, value in {**environment, **additions}.items() if value is not None}
            remedy = shell_remedy(words) if spec.exact else ""
            status = become(tool, program, words, None, environment, remedy)
    finally:
        os._exit(status)


def _go_to(tool: str, folder: str, environment: dict[str, str]) -> None:
    """Go to a folder, as a shell's `cd` does: by PWD, not by the folder, a program knows of the links in its name."""
    try:
        os.chdir(folder)
    except OSError as error:
        print_stderr(f"{tool}: cannot go to the folder '{folder}': {error.strerror}; the command runs where it is")
    else:
        environment["PWD"] = folder if os.path.isabs(folder) else os.getcwd()


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


def become(
    tool: str,
    program: str | None,
    words: list[str],
    folder: str | None,
    environment: dict[str, str],
    remedy: str = "",
) -> int:
    """Execute the command as the caller would have. Returns only if that fails: the exit code, as a shell has it.

    `remedy` is said behind the message if there is no such command.
    """
    try:
        if program is None:  # not to be looked for in the current folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if folder is not None:
            os.chdir(folder)
        _execute(program, words, environment)
    except OSError as problem:
        is_missing = problem.errno in (errno.ENOENT, errno.ENAMETOOLONG)
        name = " ".join(words[0].split())  # in one line
        print_stderr(f"{tool}: cannot execute '{name}': {problem.strerror}{remedy if is_missing else ''}")
        return NOT_FOUND if is_missing else CANNOT_EXECUTE


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
