"""Turning hosts, ports, services and UNIX sockets, as people write them, into addresses that sockets take."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import NamedTuple, Optional, Union

from ..errors import ServerUnavailable, UsageError
from .text import decode_text

LONGEST_PATH = 103  # bytes of a UNIX socket's name that every system takes (macOS and BSD: sun_path has 104)
_HOST = re.compile(r"\[([^\[\]]+)\](?::([0-9]+)(?=:|\Z))?|([^:\[\]]+)")
# Not left to the resolver: a host whose hosts file lacks it would ask a name server, which may be silent.
_LOOPBACK = {"localhost": ("127.0.0.1", "::1"), "": ("127.0.0.1", "::1")}


class Address(NamedTuple):
    """An address to bind or to connect to: the address family, and what the socket call takes."""

    family: socket.AddressFamily
    sockaddr: Union[str, bytes, tuple[str, int], tuple[str, int, int, int]]  # bytes: an abstract UNIX socket's name

    def __str__(self) -> str:
        if isinstance(self.sockaddr, str):
            return self.sockaddr
        if isinstance(self.sockaddr, bytes):
            return "@" + os.fsdecode(self.sockaddr[1:])
        host = f"[{self.sockaddr[0]}]" if ":" in self.sockaddr[0] else self.sockaddr[0]
        return f"{host}:{self.sockaddr[1]}"


class Host(NamedTuple):
    """A host as a list of hosts has it: its name or address; with a `port`, the server is asked there."""

    name: str
    port: Optional[int] = None

    def __str__(self) -> str:
        if self.port is not None:
            return f"[{self.name}]:{self.port}"
        return f"[{self.name}]" if ":" in self.name else self.name


def split_hosts(text: str) -> list[Host]:
    """Split a colon-separated list of hosts, each NAME, [NAME] (as an IPv6 address has to stand) or [NAME]:PORT.

    Raises UsageError.
    """
    found = list(_HOST.finditer(text))
    if ":".join(entry[0] for entry in found) != text:
        raise UsageError(
            f"the host list '{text}' is not understood: separate hosts by one colon, put IPv6 addresses in brackets"
        )
    return [_read_host(entry[1] or entry[3], entry[2], text) for entry in found]


def _read_host(name: str, port: str | None, text: str) -> Host:
    if name.isascii() and name.isdigit():
        raise UsageError(
            f"'{name}' in the host list '{text}' is a number, not a host: give the port by --port, or write [HOST]:PORT"
        )
    if port is None:
        return Host(name)
    if len(port) > 5 or not 0 < int(port) <= 65535:
        raise UsageError(f"the port '{port}' in the host list '{text}' is not a number from 1 to 65535")
    return Host(name, int(port))


def port_number(text: str, service_protocol: str) -> int:
    """Read a port number, or look up a service in the services file ("tcp" or "udp"). Raises UsageError."""
    if text.isascii() and text.isdigit():
        if int(text) <= 65535:
            return int(text)
    else:
        with contextlib.suppress(OSError, UnicodeError):
            return socket.getservbyname(text, service_protocol)
    raise UsageError(
        f"the port '{text}' is neither a number up to 65535 nor a {service_protocol} service that this host knows"
    )


def service_port(service: str, service_protocol: str, otherwise: int) -> int:
    """Look up the port of a service in this host's services file; `otherwise` if it has no entry."""
    try:
        return socket.getservbyname(service, service_protocol)
    except OSError:
        return otherwise


def is_socket_path(port: str) -> bool:
    """Return True if a port is the name of a UNIX socket: it has a slash, which no number and no service has."""
    return "/" in port


def needs_look_up(host: str) -> bool:
    """Tell if it takes a resolver to find the addresses of a host: it is a name, and not that of the loopback."""
    if host in _LOOPBACK:
        return False
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return False
    return True


def find_addresses(host: str, port: int, kind: socket.SocketKind) -> list[Address]:
    """Find all addresses of a host. A name is looked up, which may take as long as the resolver does.

    Raises ServerUnavailable if the host is not known.
    """
    addresses: list[Address] = []
    for name in _LOOPBACK.get(host, (host,)):
        flags = socket.AI_NUMERICHOST if name != host else 0
        try:
            found = socket.getaddrinfo(name, port, type=kind, flags=flags)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ServerUnavailable(f"the host '{host}' is not known: {reason}") from None
        for family, _, _, _, sockaddr in found:
            address = Address(family, sockaddr)  # type: ignore[arg-type]
            if address not in addresses:
                addresses.append(address)
    return addresses


def socket_path(path: str) -> Address:
    """Make the address of a UNIX socket. Raises UsageError if the name is empty or longer than the system allows."""
    if len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH or "\0" in path or not path:
        raise UsageError(
            f"the UNIX socket's name '{path}' is empty or longer than {LONGEST_PATH} bytes: choose another"
        )
    return Address(socket.AF_UNIX, path)


def own_host_name() -> str:
    """Return the host's own name as the kernel has it; no name server is asked. A nameless host is `localhost`."""
    name = "".join(decode_text(os.fsencode(socket.gethostname())).split())
    return name if name and name != "(none)" else "localhost"
