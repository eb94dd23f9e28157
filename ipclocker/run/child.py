"""A child process that is made first and becomes the command later, when it is told to.

What the command is to be worked out in the child: reading the command line takes more memory than all the rest,
and the child gives it back when it becomes the command. What it found goes to the parent; then it waits. If the
parent ends before it gives the word, the child ends too.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import signal
import sys
from typing import Any, Callable, NamedTuple, NoReturn

from ..errors import CANNOT_EXECUTE, INTERNAL, NOT_FOUND, SIGNALLED, IpclockerError
from . import libc
from .tell import tell
from .words import SHELL, find_program

_MESSAGE = 65_536  # bytes read at a time


class Order(NamedTuple):
    """What the child becomes: the words to execute, and where; the parent sees neither."""

    words: list[str]
    folder: str | None = None


class Child:
    """The parent's end. `options` is what the child found, or None if it ended instead (its status tells)."""

    def __init__(self, tool: str, prepare: Callable[[], tuple[dict[str, Any], Order | None]]) -> None:
        """Make the child. It calls `prepare`, which returns what the parent is to know and what to become.

        `tool` is whose messages these are. `prepare` may end the child by SystemExit, with a message on stderr.
        Raises IpclockerError if there can be no further process.
        """
        ignores_children = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        if ignores_children:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller's whim; a status is needed here
        news_in, news_out = os.pipe()
        word_in, word_out = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        try:
            self.pid = os.fork()
        except OSError as error:
            raise IpclockerError(f"cannot make a process for the command: {error.strerror}") from None
        if self.pid == 0:
            os.close(news_in)
            os.close(word_out)
            if ignores_children:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            _be_child(tool, prepare, parent, news_out, word_in)
        os.close(news_out)
        os.close(word_in)
        self._word = word_out
        self._news = news_in

    def options(self) -> dict[str, Any] | None:
        """What the child found, once; None if it has ended instead."""
        data = b"".join(iter(lambda: os.read(self._news, _MESSAGE), b""))
        os.close(self._news)
        found: dict[str, Any] | None = marshal.loads(data) if data else None
        return found

    def exit_code(self) -> int:
        """How a child has ended that found nothing; waits for it."""
        status = os.waitpid(self.pid, 0)[1]
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else SIGNALLED + os.WTERMSIG(status)

    def start(self, additions: dict[str, str]) -> None:
        """Give the word: the child becomes the command, with these additions to the caller's environment."""
        with contextlib.suppress(BrokenPipeError):  # it is gone already; its status will tell
            os.write(self._word, marshal.dumps(additions))
        os.close(self._word)

    def dismiss(self) -> None:
        """The child is not needed: let it end."""
        os.close(self._word)


def _be_child(
    tool: str, prepare: Callable[[], tuple[dict[str, Any], Order | None]], parent: int, news: int, word: int
) -> NoReturn:
    status = INTERNAL
    try:
        options, order = prepare()
        os.write(news, marshal.dumps(options))
        os.close(news)
        if order is None:
            status = 0
        else:
            protected = libc.die_with_parent(signal.SIGKILL)
            if protected and os.getppid() != parent:
                os._exit(INTERNAL)  # it ended before it could have taken us with it
            status = _become(tool, order, word)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else INTERNAL
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _read_all(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, _MESSAGE), b""))


def _become(tool: str, order: Order, word: int) -> int:
    """Wait for the word and execute the command as the caller would have.

    Only returns if there is no word, or that fails, with the exit code to use. All that can be done before the word
    is done before: what comes after it is time in which the lock is held and nothing runs.
    """
    environment = caller_environment()
    program = find_program(order.words[0], environment)
    restore_signals()
    additions = _read_all(word)
    if not additions:
        return INTERNAL
    environment.update(marshal.loads(additions))
    try:
        if program is None:  # not to be looked for in the current folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if order.folder is not None:
            os.chdir(order.folder)
        _execute(program, order.words, environment)
    except OSError as problem:
        tell(f"{tool}: cannot execute '{order.words[0]}': {problem.strerror}")
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
    """The environment that this program was started with; Python may have set LC_CTYPE in its own copy."""
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
