"""Handing over from a server to the next one: its sockets stay open, and execve(2) keeps the process.

A variable of the environment says what the new program finds (Takeover), which it takes from there first of all. It is
for one process alone, as LISTEN_PID says it for sockets of a service manager (net/socket_activation.py).
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import Any, NamedTuple, Optional

from ..net.socket_activation import copies
from ..net.unix_socket import UnixSocket

VARIABLE = "IPCLOCKER_TAKEOVER"
# The roles that a program may be started in, besides the usual one: it says that it understands its command line, or
# makes its server and closes it, and ends; it is the server of the foreground, the one below a monitor, or a monitor.
PROBE, TRIAL, FOREGROUND, SERVER, MONITOR = "probe", "trial", "foreground", "server", "monitor"


class Inheritance(NamedTuple):
    """What a server has from the one before it; the first one has nothing but, perhaps, a service manager's sockets.

    sockets: open already, to be served on
    name: identity of the UNIX socket's name in the file system if the server has to remove that in the end
    state: the file that locks are kept in; None: the options say where
    last_token: the last number that was given to a grant
    """

    sockets: tuple[socket.socket, ...] = ()
    name: Optional[tuple[int, int]] = None
    state: Optional[str] = None
    last_token: int = 0

    def copy(self) -> Inheritance:
        """Duplicate the sockets, for a server that closes its own while these stay open."""
        return self._replace(sockets=tuple(copies(self.sockets)))

    def drop(self) -> None:
        """Close the sockets, and remove the name that is to be removed: there is no server to do that."""
        for sock in self.sockets:
            if self.name is not None:
                UnixSocket.adopt(sock.getsockname(), sock, self.name).close()
            sock.close()


class Takeover(NamedTuple):
    """A program's start in the place of another version of itself.

    role: one of those above
    inheritance: what the server of the foreground, or below the monitor, has; a monitor's is for the next servers
    pid_file: descriptor of the pid file, which this process has
    status: descriptor of the socket between monitor and server
    server: pid of the monitor's server; 0: it has none
    """

    role: str
    inheritance: Inheritance = Inheritance()
    pid_file: Optional[int] = None
    status: Optional[int] = None
    server: int = 0

    def descriptors(self) -> list[int]:
        """Return all descriptors that the new program needs."""
        others = [number for number in (self.pid_file, self.status) if number is not None]
        return [*(sock.fileno() for sock in self.inheritance.sockets), *others]

    def write(self) -> str:
        """Write it as the variable's value; the new program is this process, or for a trial its child."""
        sockets = [sock.fileno() for sock in self.inheritance.sockets]
        inheritance = self.inheritance._asdict() | {"sockets": sockets}
        return json.dumps(self._asdict() | {"pid": os.getpid(), "inheritance": inheritance})


def take_over() -> Takeover | None:
    """Take what this program was started with in another one's place, out of the environment; None: the usual start."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    with suppress(ValueError, TypeError, KeyError, OSError):  # a stray variable, which means nothing
        return _read(json.loads(text))
    return None


def _read(data: dict[str, Any]) -> Takeover | None:
    if data.pop("pid") != (os.getppid() if data["role"] in (PROBE, TRIAL) else os.getpid()):
        return None
    found = data.pop("inheritance")
    name = found.pop("name")
    sockets = tuple(socket.socket(fileno=number) for number in found.pop("sockets"))
    takeover = Takeover(
        inheritance=Inheritance(sockets, tuple(name) if name is not None else None, **found),
        **data,
    )
    for number in takeover.descriptors():
        os.set_inheritable(number, False)
    return takeover
