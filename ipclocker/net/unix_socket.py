"""A server's UNIX socket, whose name in the file system is there as long as the server lives, and no longer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from ..errors import UsageError
from .address import socket_path

Self = TypeVar("Self", bound="UnixSocket")
BACKLOG = 4096  # connections that may wait to be accepted; the kernel lowers it to its own bound (net.core.somaxconn)
_LOCK_WITHIN = 5.0  # seconds to wait for another server that is starting in the same folder; each takes milliseconds


class UnixSocket:
    """A bound UNIX socket; it takes the place of a socket of that name that no server answers any more.

    A subclass sets `kind`, and `option`, the command line option that advice names. Raises UsageError if the
    name is taken by a server that lives or by a file of another kind, or can't be made.
    """

    kind: socket.SocketKind
    option: str
    backlog = BACKLOG

    def __init__(self, path: str) -> None:
        self.path = path
        self._advice = f"choose another with {self.option}"
        address = socket_path(path)
        self.socket = socket.socket(socket.AF_UNIX, self.kind)
        try:
            with _folder_locked(path):
                self._remove_dead_socket()
                self.socket.bind(address.sockaddr)
                self.name = _identity(path)
                self._give_access()
                if self.kind == socket.SOCK_STREAM:
                    self.socket.listen(self.backlog)  # within the lock: a socket that does not listen looks dead
            self.socket.setblocking(False)
        except OSError as error:
            self.socket.close()
            raise UsageError(f"cannot listen on the UNIX socket '{path}': {error.strerror} ({self._advice})") from None
        except UsageError:
            self.socket.close()
            raise

    @classmethod
    def adopt(cls: type[Self], path: str, sock: socket.socket, name: tuple[int, int]) -> Self:
        """Go on with the socket of another one, and with its `name`, which tells it from others at that path."""
        adopted = cls.__new__(cls)
        adopted.path, adopted.socket, adopted.name = path, sock, name
        sock.setblocking(False)
        return adopted

    def close(self) -> None:
        """Close the socket, and remove its name unless another server has that by now."""
        with contextlib.suppress(OSError, UsageError), _folder_locked(self.path):
            if _identity(self.path) == self.name:
                Path(self.path).unlink()
        self.socket.close()

    def _give_access(self) -> None:
        """Let all users connect, as they can to a port; the permissions of its folder may say less."""
        Path(self.path).chmod(0o666)

    def _remove_dead_socket(self) -> None:
        try:
            mode = os.stat(self.path, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise UsageError(f"cannot listen on '{self.path}': it is a file, and no socket ({self._advice})")
        if not self._is_dead():
            raise UsageError(
                f"cannot listen on '{self.path}': another server answers there (end that one, or {self._advice})"
            )
        Path(self.path).unlink()

    def _is_dead(self) -> bool:
        """Tell if no server has the socket of that name any more."""
        with socket.socket(socket.AF_UNIX, self.kind) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                return True
            except OSError:
                pass  # its queue is full, it is of another kind, or not ours to connect to: a server has it
        return False


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _folder_locked(path: str) -> Iterator[None]:
    """Lock the folder: one server at a time looks at a name there and takes it, so that two can't both replace it."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_WITHIN
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UsageError(f"cannot listen on '{path}': its folder is locked by another process") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(folder)
