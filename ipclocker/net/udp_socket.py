"""Opening the datagram sockets of a server: UDP ports of its hosts, of all addresses, or a UNIX socket."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys

from ..errors import UsageError
from .address import Address, find_addresses
from .tcp_listener import advice, bind_all
from .unix_socket import UnixSocket

_BUFFER = 8 << 20  # bytes that may wait to be read, where that is allowed: 10,000 questions, of 768 in the kernel each
_SO_RCVBUFFORCE = 33  # as SO_RCVBUF, beyond the system's bound; for root (socket(7))


def udp_sockets(hosts: list[str], port: int) -> list[socket.socket]:
    """Bind a port of each host, which may be a name or an address; port 0 takes one that is free.

    An address that this system does not have (an IPv6 address, say) is left out as long as one remains. Raises
    ServerUnavailable (host not known) or UsageError (the port is taken, not allowed).
    """
    return bind_all([dict.fromkeys(a for host in hosts for a in find_addresses(host, port, socket.SOCK_DGRAM))], _bind)


def udp_everywhere(port: int) -> list[socket.socket]:
    """Bind a port of all addresses of this host, by one socket for IPv4 and IPv6.

    Where the system has IPv4 only, the socket is for that. Raises UsageError (the port is taken, not allowed).
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
        enlarge_buffer(sock)
        sock.bind(address.sockaddr)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def adopt_datagrams(sockets: list[socket.socket]) -> list[socket.socket]:
    """Set the options of own sockets for some that a service manager has opened; return them."""
    for sock in sockets:
        enlarge_buffer(sock)
        sock.setblocking(False)
    return sockets


def enlarge_buffer(sock: socket.socket) -> None:
    """Set the receive buffer to _BUFFER bytes or as much as the system allows, so that a burst is not lost."""
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE) if sys.platform == "linux" else (socket.SO_RCVBUF,):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


class UnixDatagram(UnixSocket):
    """A UNIX datagram socket."""

    kind = socket.SOCK_DGRAM
    option = "--port"
