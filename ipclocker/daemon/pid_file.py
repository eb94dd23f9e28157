"""The pid file: it names a running server's process, and no second server can take it while the first one lives.

The lock on the file (flock) decides which server has it; the kernel removes the lock with the process, however that
ended, so that a file that was left behind is simply taken over. The number in it is for people and scripts. A file is
written and locked before it gets its name, so that nobody reads half a number or finds it free.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Callable

from ..errors import UsageError
from .same_file import is_at


class PidFile:
    """The pid file of a server. Without a path nothing is written and no second server is refused."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(os.path.realpath(path)) if path is not None else None
        self._locked: int | None = None  # the descriptor, closed in programs that this process executes

    @property
    def descriptor(self) -> int | None:
        """The open file, which is locked; None if this process has none."""
        return self._locked

    def adopt(self, descriptor: int) -> None:
        """Go on with the file that an earlier program of this process has acquired."""
        self._locked = descriptor

    def acquire(self) -> None:
        """Take the file and write this process's pid. Raises UsageError if it is taken or not writable."""
        if self._path is None:
            return
        try:
            self._locked = _take(self._path)
        except BlockingIOError:
            raise UsageError(f"already running as {_who(self._path)}: it holds the pid file {self._path}") from None
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def write(self) -> None:
        """Write this process's pid to the file, which it or the process that it was forked from has acquired."""
        if self._path is None or self._locked is None:
            return
        try:
            locked = _put(self._path, os.replace)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        os.close(self._locked)
        self._locked = locked

    def close_in_parent(self) -> None:
        """Leave the file to the other process of a fork, which has it, too."""
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    def remove(self) -> None:
        """Remove the file if it is still this one. If that fails it stays, and the next server takes it over."""
        if self._path is not None and self._locked is not None and is_at(self._locked, self._path):
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.close_in_parent()


def remove_unheld(path: str) -> None:
    """Remove a pid file that no server holds, whoever has written it. Raises OSError, also if one holds it."""
    there = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(there, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_at(there, Path(path)):  # a server has just put its own there
            raise BlockingIOError
        os.unlink(path)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, f"{_who(Path(path))} holds it") from None
    finally:
        os.close(there)


def _take(path: Path) -> int:
    """Put a file of ours where there is none, or one that no server has. Raises BlockingIOError if one has it."""
    while True:
        try:
            there = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another was faster: look again
                return _put(path, os.link)
            continue
        try:
            if not stat.S_ISREG(os.fstat(there).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            fcntl.flock(there, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(there, path):  # else it was replaced after we opened it: look again
                return _put(path, os.replace)
        finally:
            os.close(there)


def _put(path: Path, move: Callable[[Path, Path], object]) -> int:
    """Write a file with our pid, lock it and move it into its place; return its descriptor."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        move(new, path)
    except OSError:
        os.close(descriptor)
        raise
    finally:
        new.unlink(missing_ok=True)
    return descriptor


def _who(path: Path) -> str:
    """Name the process that the file has now, in words: the file that was locked may have been replaced."""
    try:
        return f"process {int(path.read_bytes())}"
    except (OSError, ValueError):
        return "another process"


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"the pid file {path} cannot be written ({error.strerror}): name another with --pid-file")
