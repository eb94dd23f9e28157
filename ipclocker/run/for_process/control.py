"""The keeper's end of its conversations: with the lockersh that has started it, and over a socket with later ones.

Both sides send JSON objects, one on a line. A front asks for one thing:

    {"ask": "hold", "wanted": [...]}     progress, then "grants", "error", or "again": this keeper is about to end
    {"ask": "taken"}                     behind "grants": the caller knows of them, and they are to stay
    {"ask": "release", "names": [...]}   "within", so many seconds, then "released" or "error"

A keeper that has other locks than those answers "other". Only the same user is spoken with, or root.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from typing import Any, Protocol

from ...daemon.runtime_dir import make_runtime_folder, runtime_folders
from ...net.line_buffer import LineTooLong, split_lines
from ...net.loop import READ, WRITE, Loop
from ...net.transport import Transport
from ...net.unix_socket import UnixSocket
from ...process.identity import ProcessIdentity, exists
from ...process.viewpoint import own_pidns

LONGEST = 1 << 20  # bytes of a line: as many names as any server takes, each character of them escaped
_FOLDER = "for"
_PEER = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
Message = dict[str, Any]


class Front(Transport):
    """One lockersh that speaks with the keeper; `wants` is what it still waits for: "hold", "release" or ""."""

    def __init__(self, loop: Loop, sock: socket.socket, keeper: Asked, wants: str = "") -> None:
        super().__init__(loop, sock)
        self.wants = wants
        self._keeper = keeper
        self._rest = b""
        sock.setblocking(False)
        self.wait_for(READ)

    def say(self, message: Message) -> None:
        """Send a message, unless the other side has gone."""
        if self.is_open:
            try:
                self.wait_for(READ if self.send(json.dumps(message).encode() + b"\n") else READ | WRITE)
            except OSError:
                self.close()

    def on_data(self, data: bytes) -> None:
        try:
            lines, self._rest = split_lines(self._rest, data, LONGEST)
            for line in lines:
                self._keeper.asked(self, json.loads(line))
        except (LineTooLong, ValueError, TypeError, KeyError, RecursionError):
            self.close()

    def on_writable(self) -> None:
        if self.send(b""):
            self.wait_for(READ)

    def on_close(self) -> None:
        self._keeper.left(self)


class Asked(Protocol):
    """The keeper, as those who speak with it know it."""

    def asked(self, front: Front, message: Message) -> None:
        """Take a message. Raises ValueError, TypeError or KeyError for one that makes no sense."""

    def left(self, front: Front) -> None:
        """Note that this one has gone."""


class _Socket(UnixSocket):
    kind = socket.SOCK_STREAM
    option = "--lock"

    def _give_access(self) -> None:
        os.chmod(self.path, 0o600)


class ControlSocket:
    """The socket of a keeper, whose name says for which process and which locks it is."""

    def __init__(self, loop: Loop, process: ProcessIdentity, key: str, keeper: Asked) -> None:
        """Raises UsageError if another keeper has it, StateError if there is no place for it."""
        folder = make_runtime_folder(_FOLDER)
        _remove_left_ones(folder)
        self._loop = loop
        self._keeper = keeper
        self._socket = _Socket(f"{folder}/{_prefix(process)}{key}")
        loop.watch(self._socket.socket, READ, self._accept)

    def close(self) -> None:
        """Give the name back; who has connected already is still spoken with."""
        self._loop.unwatch(self._socket.socket)
        self._socket.close()

    def _accept(self, events: int) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._socket.socket.accept()
            if is_own(sock):
                Front(self._loop, sock, self._keeper)
            else:
                sock.close()


def is_own(sock: socket.socket) -> bool:
    """Tell if this user, or root, is at the other end of a UNIX socket; True where the system does not tell."""
    try:
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    except (AttributeError, OSError):  # the folder, which is closed to others, has to be enough
        return True
    return _PEER.unpack(peer)[1] in (0, os.geteuid())


def sockets_for(process: ProcessIdentity, key: str = "") -> list[str]:
    """Return the paths of the sockets of this process's keepers; one that was killed may have left its own.

    Those with this key come first.
    """
    found = []
    for folder in runtime_folders(_FOLDER):
        with contextlib.suppress(OSError):
            names = sorted(name for name in os.listdir(folder) if name.startswith(_prefix(process)))
            found += [f"{folder}/{name}" for name in names]
    return sorted(found, key=lambda path: not path.endswith(f".{key}"))


def _prefix(process: ProcessIdentity) -> str:
    # Containers may share the folder, and have processes of the same number.
    return f"{process.pid}.{process.start or 0}.{own_pidns() or 0}."


def _remove_left_ones(folder: str) -> None:
    """Remove the sockets of keepers that were killed, as soon as their processes are gone."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            pid, start, pidns, *_ = [*name.split("."), "", "", ""]
            is_ours = pid.isdigit() and start.isdigit() and pidns == str(own_pidns() or 0)
            if is_ours and exists(int(pid), int(start) or None) is False:
                os.unlink(f"{folder}/{name}")
