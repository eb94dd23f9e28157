"""Opening the stream sockets that a server listens on: TCP ports of its hosts, or a UNIX socket."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from collections.abc import Iterable
from typing import Callable

from ..errors import UsageError
from .address import Address, find_addresses
from .unix_socket import BACKLOG, UnixSocket

# Where the system has them. A client whose host went away without a word is noticed within a minute (30 + 3 * 10 s,
# or 60,000 ms for what was sent and not received); one that has said nothing yet is not worth a wake-up (the kernel
# hands it over after a second all the same).
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

    An address that this system does not have (an IPv6 loopback, say) is left out as long as the host has another one.
    Raises ServerUnavailable (host not known) or UsageError (the port is taken, not allowed).
    """
    return bind_all((find_addresses(host, port, socket.SOCK_STREAM) for host in hosts), _listen)


def bound_sockets(hosts: list[str], port: int) -> list[socket.socket]:
    """Bind a port of each host as `tcp_listeners` does, and do not listen: who connects is refused.

    Meanwhile no other program of this host can take the port.
    """
    return bind_all((find_addresses(host, port, socket.SOCK_STREAM) for host in hosts), _bind_alone)


def start_listening(sock: socket.socket) -> None:
    """Listen on a bound socket. Raises OSError if another program has come before."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier time may still be there
    _tune(sock)
    sock.listen(BACKLOG)


def accept_silent(listener: socket.socket) -> None:
    """Let those be accepted as well, from now on, who have connected and sent nothing yet: the listener is to end."""
    if listener.family != socket.AF_UNIX and hasattr(socket, "TCP_DEFER_ACCEPT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)


def stop_listening(sock: socket.socket) -> socket.socket:
    """Stop listening, and return a socket that is bound to the same port; those not accepted yet are cut off.

    Where the system can't do that (Linux can) it is a new socket, and in between the port is nobody's. One that does
    not listen is returned as it is.
    """
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return sock
    try:
        sock.shutdown(socket.SHUT_RDWR)
        _reserve(sock)
    except OSError:
        address = Address(sock.family, sock.getsockname())
        sock.close()
        return _bind_alone(address)
    return sock


def bind_all(groups: Iterable[Iterable[Address]], bind: Callable[[Address], socket.socket]) -> list[socket.socket]:
    """Bind all addresses, at least one of each group; for port 0 all get the port that the first one got.

    Raises UsageError for an address that is taken or not allowed, or if this system has no address of a group.
    """
    bound: list[socket.socket] = []
    try:
        for addresses in groups:
            failure = None
            before = len(bound)
            for address in addresses:
                if address.sockaddr[1] == 0 and bound:
                    port = bound[0].getsockname()[1]
                    address = Address(address.family, (address.sockaddr[0], port, *address.sockaddr[2:]))
                try:
                    bound.append(bind(address))
                except OSError as error:
                    failure = UsageError(f"cannot listen on {address}: {error.strerror}{advice(error)}")
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise failure from None
            if failure is not None and len(bound) == before:
                raise failure
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def advice(error: OSError) -> str:
    """Say what to do about an address that can't be bound."""
    if error.errno == errno.EADDRINUSE:
        return " (another server has it: end that one, or choose another with --port)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return " (ports below 1024 are the system's: choose another with --port)"
    if error.errno == errno.EADDRNOTAVAIL:
        return " (it is no address of this host: choose another with --host)"
    return ""


def _listen(address: Address) -> socket.socket:
    return _opened(address, lambda listener: listener.listen(BACKLOG))


def _bind_alone(address: Address) -> socket.socket:
    if address.sockaddr[1] == 0:  # a port that the system chose would not outlive `stop_listening`
        with _opened(address, lambda sock: None) as chosen:
            return _opened(Address(address.family, chosen.getsockname()), _reserve)
    return _opened(address, _reserve)


def _reserve(sock: socket.socket) -> None:
    """Let no other socket be bound to the port of one that does not listen.

    The option SO_REUSEADDR lets a socket share its port with connections of an earlier time; but also with others that
    have it and do not listen either. So a socket has it while it is bound and while it listens, and not in between.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _opened(address: Address, finish: Callable[[socket.socket], None]) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _tune(sock)
        sock.bind(address.sockaddr)
        finish(sock)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _tune(listener: socket.socket) -> None:
    """Set the options that each accepted connection inherits; with TCP_NODELAY no answer waits for the next one."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS:
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def adopt_listeners(listeners: list[socket.socket]) -> list[socket.socket]:
    """Set the options of own listeners for some that a service manager has opened; return them."""
    for listener in listeners:
        if listener.family != socket.AF_UNIX:
            _tune(listener)
        listener.setblocking(False)
    return listeners


def raise_descriptor_limit() -> None:
    """Raise the limit of descriptors, so of clients, to the hard limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def accept(listener: socket.socket, family: int) -> tuple[socket.SocketType, str]:
    """Accept the next connection of a listener of this family; with it, the client's host (empty for UNIX sockets).

    This is socket.accept without its wrapping in Python, which costs as much as all that is done for a request:
    asking the listener for its family, a property, is half a microsecond. Raises OSError.
    """
    number, address = listener._accept()  # type: ignore[attr-defined]
    return socket.SocketType(family, _STREAM, 0, number), address[0] if family != _UNIX else ""


class UnixListener(UnixSocket):
    """A listening UNIX stream socket."""

    kind = socket.SOCK_STREAM
    option = "--path"
