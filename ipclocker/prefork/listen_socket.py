"""Makes the socket that FastCGI programs get as their descriptor 0 as `--listen` says, or takes an inherited one."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import struct
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

from ..errors import UsageError
from ..net.address import Address, find_addresses, port_number, socket_path
from ..net.unix_socket import UnixSocket
from .owner_file import OwnerFile

BACKLOG = 4096  # connections that may wait to be accepted; the kernel lowers it to its own bound
MODE = 0o660  # not for all users: one that may write to the socket can have the program do anything
_FOR_EVER = struct.pack("ll", 0, 0)  # a timeval, for SO_RCVTIMEO
_FORMS = "it is HOST:PORT, unix:PATH or fd:NUMBER"


class TcpPort(NamedTuple):
    """A TCP port of a host."""

    host: str
    port: int


class UnixPath(NamedTuple):
    """The path of a UNIX socket."""

    path: str


class InheritedDescriptor(NamedTuple):
    """A descriptor that this process was started with."""

    number: int


ListenAddress = Union[TcpPort, UnixPath, InheritedDescriptor]


class Access(NamedTuple):
    """The access to a UNIX socket: its mode, and the numbers of its owner and group; None: those of the process."""

    mode: int = MODE
    user: Optional[int] = None
    group: Optional[int] = None


def parse_listen(text: str) -> ListenAddress:
    """Return the address that `--listen` names. Raises UsageError for any other text."""
    kind, colon, rest = text.partition(":")
    if kind == "unix" and colon:
        socket_path(rest)  # for what is wrong with it
        return UnixPath(str(Path(rest).absolute()))
    if kind == "fd" and rest.isascii() and rest.isdigit():
        return InheritedDescriptor(int(rest))
    host, colon, port = text.rpartition(":")
    if not colon or not port or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise UsageError(f"'{text}' is no place to listen: {_FORMS}, with an IPv6 address in brackets")
    return TcpPort(host.strip("[]"), port_number(port, "tcp"))


def parse_access(mode: str | None, owner: str | None) -> Access:
    """Return the access by a mode as chmod(1) takes it in digits, and an owner as chown(1) takes it.

    Raises UsageError for a text that is neither, and for an unknown user or group.
    """
    access = Access()
    if mode is not None:
        if not mode or set(mode) - set("01234567") or int(mode, 8) > 0o777:
            raise UsageError(f"the socket's mode can't be '{mode}': it is three digits from 0 to 7, as 660")
        access = access._replace(mode=int(mode, 8))
    if owner is not None:
        user, _, group = owner.partition(":")
        if not user and not group:
            raise UsageError(f"the socket's owner can't be '{owner}': it is USER, USER:GROUP or :GROUP")
        uid = _id(user, "owner", "user", lambda name: pwd.getpwnam(name).pw_uid)
        access = access._replace(user=uid, group=_id(group, "group", "group", lambda name: grp.getgrnam(name).gr_gid))
    return access


class ListenSocket:
    """A socket that listens until it is closed; `socket` is the one that does so now."""

    def __init__(self, address: ListenAddress, access: Access | None = None, backlog: int = BACKLOG) -> None:
        """Listen. `access` is for a UNIX socket, `backlog` the connections that may wait to be accepted.

        Raises UsageError if the address can't be listened on, ServerUnavailable if the host's name is not known.
        """
        if access is not None and not isinstance(address, UnixPath):
            raise UsageError("mode and owner are of a UNIX socket: leave them out, or listen on unix:PATH")
        self._address = address
        self._access = access or Access()
        self._backlog = backlog
        self._owner_file = OwnerFile(address.path) if isinstance(address, UnixPath) else None
        self._listen()
        if isinstance(address, TcpPort):  # the port that the system has picked if it is 0
            self._address = address._replace(port=self._name[1])

    @property
    def is_inherited(self) -> bool:
        """True if another program has made the socket."""
        return isinstance(self._address, InheritedDescriptor)

    def restore(self) -> None:
        """Undo what a program has done to the socket, since that holds for all that have it: it blocks, for ever."""
        self.socket.setblocking(True)
        with contextlib.suppress(OSError):  # not the same everywhere, and hardly ever set
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _FOR_EVER)

    def listen_again(self) -> None:
        """Listen at the same address by a new socket. Raises as the constructor does, and keeps the old one then.

        For a socket that is not inherited, and that was shut down.
        """
        close_old = self._close
        self._listen()
        close_old()

    def _listen(self) -> None:
        self._close: Callable[[], None]
        if isinstance(self._address, UnixPath):
            assert self._owner_file is not None
            named = _NamedSocket(self._address.path, self._access, self._backlog, self._owner_file)
            self.socket, self._close = named.socket, named.close
        else:
            if isinstance(self._address, InheritedDescriptor):
                self.socket = _inherited(self._address.number)
            else:
                self.socket = _listen_tcp(self._address, self._backlog)
            self._close = self.socket.close
        self._name = self.socket.getsockname()  # which one that is shut down may lose
        self.restore()

    def __str__(self) -> str:
        address = Address(self.socket.family, self._name)
        return f"unix:{address}" if address.family == socket.AF_UNIX else str(address)

    def close(self) -> None:
        """Close the socket, and remove the name of a UNIX socket."""
        if self._owner_file is not None:
            self._owner_file.remove()
        self._close()


class _NamedSocket(UnixSocket):
    kind = socket.SOCK_STREAM
    option = "--listen"

    def __init__(self, path: str, access: Access, backlog: int, owner_file: OwnerFile) -> None:
        self._access = access
        self._owner_file = owner_file
        self.backlog = backlog
        super().__init__(path)

    def _is_dead(self) -> bool:
        """Tell if no server has it; what a prefork that was killed has left alive is none."""
        return super()._is_dead() or self._owner_file.owner_is_gone()

    def _give_access(self) -> None:
        self._owner_file.take()
        mode, user, group = self._access
        if user is not None or group is not None:
            os.chown(self.path, -1 if user is None else user, -1 if group is None else group, follow_symlinks=False)
        Path(self.path).chmod(mode)


def _listen_tcp(port: TcpPort, backlog: int) -> socket.socket:
    """Listen on the first of a host's addresses that this system has; a program has only one socket."""
    failure: OSError | None = None
    for address in find_addresses(port.host, port.port, socket.SOCK_STREAM):
        listener = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which connections take over
            listener.bind(address.sockaddr)
            listener.listen(backlog)
        except OSError as problem:
            listener.close()
            failure = problem
            if problem.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
        else:
            return listener
    assert failure is not None
    raise UsageError(f"cannot listen on {port.host}:{port.port}: {failure.strerror} (choose another with --listen)")


def _inherited(number: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=number)
    except OSError:
        raise UsageError(f"descriptor {number} is no open socket: hand one over by --listen fd:NUMBER") from None
    listens = listener.type == socket.SOCK_STREAM
    with contextlib.suppress(OSError, AttributeError):  # a system that does not tell
        listens = listens and bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if not listens:
        listener.detach()
        raise UsageError(f"descriptor {number} is a socket on which nobody listens: hand over one that was listened on")
    listener.set_inheritable(False)  # the programs get it under another number
    return listener


def _id(name: str, what: str, kind: str, look_up: Callable[[str], int]) -> int | None:
    try:
        return None if not name else int(name) if name.isdigit() else look_up(name)
    except KeyError:
        raise UsageError(f"the socket's {what} can't be '{name}': there is no such {kind}") from None
