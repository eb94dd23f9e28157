"""Sockets that a server listens on: bound to addresses, or to a UNIX socket's name, and given back at the end."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket

from ..errors import UsageError
from .address import Address, find_addresses
from .unix_socket import UnixSocket

_BACKLOG = 4096  # connections that may wait to be accepted; the kernel lowers it to its own bound
# Where the system has them. A client whose host went away without a word is noticed within a minute; one that
# has said nothing yet is not worth a wake-up (the kernel hands it over after a second all the same).
_TCP_OPTIONS = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 60_000),
    ("TCP_DEFER_ACCEPT", 1),
)
_STREAM, _UNIX = int(socket.SOCK_STREAM), int(socket.AF_UNIX)


def tcp_listeners(hosts: list[str], port: int) -> list[socket.socket]:
    """Listen on a port of each host, which may be a name or an address; port 0 takes one that is free.

    What a host name stands for twice, or what this system has not (an IPv6 loopback), is left out as long as one
    address remains. Raises ServerUnavailable (host not known) or UsageError (the port is taken, not allowed).
    """
    listeners: list[socket.socket] = []
    try:
        for host in hosts:
            failure = None
            before = len(listeners)
            for address in find_addresses(host, port, socket.SOCK_STREAM):
                if port == 0 and listeners:
                    address = with_port(address, listeners[0].getsockname()[1])
                try:
                    listeners.append(_listen(address))
                except OSError as error:
                    failure = UsageError(f"cannot listen on {address}: {error.strerror}{advice(error)}")
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise failure from None
            if failure is not None and len(listeners) == before:
                raise failure
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def with_port(address: Address, port: int) -> Address:
    """The same address but for the port."""
    return Address(address.family, (address.sockaddr[0], port, *address.sockaddr[2:]))


def advice(error: OSError) -> str:
    """What to do about an address that can't be bound."""
    if error.errno == errno.EADDRINUSE:
        return " (another server has it: end that one, or choose another with --port)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return " (ports below 1024 are the system's: choose another with --port)"
    if error.errno == errno.EADDRNOTAVAIL:
        return " (it is no address of this host: choose another with --host)"
    return ""


def _listen(address: Address) -> socket.socket:
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _tune(listener)
        listener.bind(address.sockaddr)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _tune(listener: socket.socket) -> None:
    """Set what passes to each connection accepted. Answers are not held back to be sent together."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS:
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def adopt_listeners(listeners: list[socket.socket]) -> list[socket.socket]:
    """Set for listeners that somebody else has made what is set for own ones; the same listeners."""
    for listener in listeners:
        if listener.family != socket.AF_UNIX:
            _tune(listener)
        listener.setblocking(False)
    return listeners


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors, so as many clients, as the system allows it to allow itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def accept(listener: socket.socket, family: int) -> tuple[socket.SocketType, str]:
    """The next connection of a listener of this family, and the host that it is from (empty for UNIX sockets).

    This is socket.accept without its wrapping in Python, which costs as much as all that is done for a request:
    asking the listener for its family, a property, is half a microsecond. Raises OSError.
    """
    number, address = listener._accept()  # type: ignore[attr-defined]
    return socket.SocketType(family, _STREAM, 0, number), address[0] if family != _UNIX else ""


class UnixListener(UnixSocket):
    """A listening UNIX stream socket."""

    kind = socket.SOCK_STREAM
    option = "--path"
