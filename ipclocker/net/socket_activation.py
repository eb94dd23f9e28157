"""Taking over sockets that a service manager has opened for this process (sd_listen_fds(3)).

They stay open as long as this process: a server gets copies, so that the next server finds the sockets again, and
with them the clients that have connected meanwhile.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from ..errors import UsageError

SOCKET_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_FIRST = 3  # SD_LISTEN_FDS_START
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_WANTED = {
    socket.SOCK_STREAM: "a stream socket that listens (ListenStream=, Accept=no)",
    socket.SOCK_DGRAM: "a bound datagram socket (ListenDatagram=)",
}


def take_inherited(kind: socket.SocketKind) -> list[socket.socket]:
    """Take the sockets that this process was started with; none if they were meant for another process.

    Call it once and early: it removes the variables, so that no program that this process starts uses them.
    Raises UsageError if one of them is not of that kind, bound, and, if it is for streams, listening.
    """
    count, pid, names = (os.environ.pop(name, "") for name in SOCKET_VARIABLES)
    if not count or pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit() and len(count) < 10):
        raise UsageError(f"LISTEN_FDS is '{count}', which is no number of sockets: whoever sets it has to give one")
    called = names.split(":")
    taken: list[socket.socket] = []
    for number in range(_FIRST, _FIRST + int(count)):  # _take raises at the first that is not a socket
        name = called[number - _FIRST] if number - _FIRST < len(called) else ""
        taken.append(_take(number, f"{number} ({name})" if name else str(number), kind))
    return taken


def copies(sockets: Iterable[socket.socket]) -> list[socket.socket]:
    """Duplicate sockets, for a server that closes its own while these stay open."""
    return [sock.dup() for sock in sockets]


def _take(number: int, called: str, kind: socket.SocketKind) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
    except OSError:
        raise UsageError(
            f"the inherited descriptor {called} is no open socket: start this without LISTEN_FDS, or hand one over"
        ) from None
    if not _is_fit(sock, kind):
        sock.detach()
        raise UsageError(f"the inherited descriptor {called} is not {_WANTED[kind]}: hand over such a one")
    sock.set_inheritable(False)
    return sock


def _is_fit(sock: socket.socket, kind: socket.SocketKind) -> bool:
    if sock.type != kind or sock.family not in _FAMILIES:
        return False
    if kind == socket.SOCK_STREAM:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    name = sock.getsockname()
    return bool(name if sock.family == socket.AF_UNIX else name[1])
