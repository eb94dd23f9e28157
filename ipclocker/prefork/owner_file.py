"""Whose a UNIX socket is: so its name can be taken over when its owner was killed, and others still have the socket.

A socket answers as long as any process has it, and what a killed prefork leaves alive has it. So there is a file beside
it, `.NAME.owner`, that tells which socket its owner made, and has a lock of fcntl(2) as long as that process lives:
processes that are forked do not inherit such a lock, as they do a socket or a lock of flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

# The files that this process has the lock of. It could lock each again, and would lose the lock by closing another
# descriptor of it (fcntl(2)).
_held: set[Path] = set()


class OwnerFile:
    """The file for the socket of one name. What can't be read or written only means that no name is taken over."""

    def __init__(self, socket_path: str) -> None:
        self._socket = Path(socket_path)
        self._path = self._socket.with_name(f".{self._socket.name}.owner")
        self._descriptor: int | None = None  # while this process has the lock

    def owner_is_gone(self) -> bool:
        """Tell if the socket that has the name now was made by a process that is gone."""
        if self._path in _held:
            return False
        with contextlib.suppress(OSError), self._path.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file.read() == self._identity()
        return False

    def take(self) -> None:
        """Make the socket that has the name now this process's, until it ends."""
        with contextlib.suppress(OSError):
            if self._descriptor is None and self._path not in _held:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(descriptor)
                    raise
                self._descriptor = descriptor
                _held.add(self._path)
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, self._identity().encode(), 0)

    def remove(self) -> None:
        """Remove the file, if it is this process's."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            _held.discard(self._path)
            os.close(self._descriptor)
            self._descriptor = None

    def _identity(self) -> str:
        status = os.stat(self._socket, follow_symlinks=False)
        # With the time of bind(2): the number of an inode may be used again.
        return f"{status.st_dev} {status.st_ino} {status.st_mtime_ns}\n"
