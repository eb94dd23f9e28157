"""Datagram sockets that a server is asked on: bound to addresses, or to a UNIX socket's name, and given back."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys

from ..errors import UsageError
from .address import Address, find_addresses
from .tcp_listener import advice, with_port
from .unix_socket import UnixSocket

_BUFFER = 8 << 20  # bytes that may wait to be read, where that is allowed: 10,000 questions
_SO_RCVBUFFORCE = 33  # as SO_RCVBUF, beyond the system's bound; for root (socket(7))


def udp_sockets(hosts: list[str], port: int) -> list[socket.socket]:
    """Bind a port of each host, which may be a name or an address; port 0 takes one that is free.

    What this system has not (an IPv6 address, say) is left out as long as one address remains. Raises
    ServerUnavailable (host not known) or UsageError (the port is taken, not allowed).
    """
    bound: list[socket.socket] = []
    failure: UsageError | None = None
    try:
        for address in dict.fromkeys(a for host in hosts for a in find_addresses(host, port, socket.SOCK_DGRAM)):
            if port == 0 and bound:
                address = with_port(address, bound[0].getsockname()[1])
            try:
                bound.append(_bind(address))
            except OSError as error:
                failure = UsageError(f"cannot listen on {address}: {error.strerror}{advice(error)}")
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise failure from None
        if failure is not None and not bound:
            raise failure
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def udp_everywhere(port: int) -> list[socket.socket]:
    """Bind a port of all addresses of this host, by one socket for IPv4 and IPv6 alike; by one for IPv4 where the
    system has nothing else. Raises UsageError.
    """
    try:
        return [_bind(Address(socket.AF_INET6, ("::", port, 0, 0)), both=True)]
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
            raise UsageError(f"cannot listen on port {port}: {error.strerror}{advice(error)}") from None
        return udp_sockets(["0.0.0.0"], port)


def _bind(address: Address, both: bool = False) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_DGRAM)
    try:
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        widen(sock)
        sock.bind(address.sockaddr)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def adopt_datagrams(sockets: list[socket.socket]) -> list[socket.socket]:
    """Set for sockets that somebody else has made what is set for own ones; the same sockets."""
    for sock in sockets:
        widen(sock)
        sock.setblocking(False)
    return sockets


def widen(sock: socket.socket) -> None:
    """Let as much wait to be read as the system allows, so that a burst is not lost."""
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE) if sys.platform == "linux" else (socket.SO_RCVBUF,):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


class UnixDatagram(UnixSocket):
    """A UNIX datagram socket."""

    kind = socket.SOCK_DGRAM
    option = "--port"
