"""The place of a pid server: its UDP port or its UNIX socket, from a parameter and the services file."""

from __future__ import annotations

from typing import NamedTuple, Optional

from ..net.address import is_socket_path, port_number, service_port

SERVICE = "pidstatd"
DEFAULT_PORT = 1752


class PidEndpoint(NamedTuple):
    """A UDP port, or if `path` is set the name of a UNIX datagram socket."""

    port: int = 0
    path: Optional[str] = None


def pid_endpoint(port: str | int | None = None) -> PidEndpoint:
    """Read a port number, a UDP service, or the name of a UNIX datagram socket, which has a slash.

    None stands for the service `pidstatd`, which is 1752 where the services file does not have it. Raises UsageError.
    """
    if port is None or port == SERVICE:
        return PidEndpoint(service_port(SERVICE, "udp", DEFAULT_PORT))
    if is_socket_path(str(port)):
        return PidEndpoint(path=str(port))
    return PidEndpoint(port_number(str(port), "udp"))
