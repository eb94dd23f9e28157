"""The exceptions, which have one root, and the exit codes, which are part of the interface.

Every error that a person may meet says what was wrong, with which value, and what to do, in one line; the
command line prints that line and exits with the error's code. The codes are those of sysexits.h, so that
scripts can tell a busy lock from a broken one.
"""

from __future__ import annotations

OK = 0
USAGE = 64  # the command line is wrong
UNAVAILABLE = 69  # no server could be reached
INTERNAL = 70  # a fault of ours
OUTPUT = 74  # what was to be printed could not be written, or a server's state could not be kept
TEMPORARY = 75  # the lock is busy
LOST = 76  # the lock was lost while the command ran
NOT_ALLOWED = 77  # to this user
GAVE_UP = 79  # a program that was to be kept alive died too often
CANNOT_EXECUTE = 126  # as a shell: found, but not to be executed
NOT_FOUND = 127  # as a shell: no such command
SIGNALLED = 128  # as a shell: plus the number of the signal that ended it


class IpclockerError(Exception):
    """The root of all errors that are raised on purpose; a tool ends with its `exit_code`, which may be given."""

    exit_code = INTERNAL

    def __init__(self, text: str = "", exit_code: int | None = None) -> None:
        super().__init__(text)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(IpclockerError, ValueError):
    """A parameter, an option or an environment variable has a value that means nothing (a ValueError)."""

    exit_code = USAGE


class ServerUnavailable(IpclockerError, ConnectionError):
    """No server could be reached, or it went away and did not come back (a ConnectionError, so an OSError, too)."""

    exit_code = UNAVAILABLE


class ServerRefused(IpclockerError):
    """A server answered `error WORD`; `word` is that word."""

    def __init__(self, word: str, server: str) -> None:
        super().__init__(f"the lock server {server} refused the request: {word}")
        self.word = word
        self.server = server

    def __reduce__(self) -> tuple[type[ServerRefused], tuple[str, str]]:
        """Pickle it by what it was made of: its text alone would not make it again."""
        return type(self), (self.word, self.server)


class StateError(IpclockerError):
    """The file that a server keeps its state in can't be used."""

    exit_code = OUTPUT


class LockBusy(IpclockerError, TimeoutError):
    """The lock is held by another one, and the wait for it is over (a TimeoutError, so an OSError, too)."""

    exit_code = TEMPORARY


class LockLost(IpclockerError):
    """A lock that was held is not held any more."""

    exit_code = LOST


class NotHeld(IpclockerError, RuntimeError):
    """A lock was released by one who does not hold it (a RuntimeError, as for threading.Lock)."""


class ProgramFailed(IpclockerError):
    """A program that was to be kept alive died too often."""

    exit_code = GAVE_UP
