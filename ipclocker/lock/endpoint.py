"""The place of a lock server: its port or its UNIX socket, from parameters, environment and services file."""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

from ..errors import UsageError
from ..net.address import is_socket_path, port_number, service_port

SERVICE = "lockerd"
DEFAULT_PORT = 1751


class Endpoint(NamedTuple):
    """A TCP port, or if `path` is set the name of a UNIX socket."""

    port: int = 0
    path: Optional[str] = None


def endpoint(port: str | int | None = None, family: str = "INET", path: str | None = None) -> Endpoint:
    """Find the place of a server: `path`, else `port`, else IPCLOCKER_PORT, else the service `lockerd`, else 1751.

    A port is a number, a service name, or the name of a UNIX socket if it has a slash or the family is UNIX. The
    service `lockerd` is 1751 where the services file does not have it.
    Raises UsageError.
    """
    if family not in ("INET", "UNIX"):
        raise UsageError(f"the family '{family}' is not known: it is INET or UNIX")
    if path is None and port is None:
        port = os.environ.get("IPCLOCKER_PORT") or None
    if path is None and port is not None and (family == "UNIX" or is_socket_path(str(port))):
        path = str(port)
    if path is not None:
        return Endpoint(path=path)
    if family == "UNIX":
        raise UsageError("the family UNIX needs the name of a socket: give it as port or path")
    if port is None or port == SERVICE:
        return Endpoint(service_port(SERVICE, "tcp", DEFAULT_PORT))
    return Endpoint(port_number(str(port), "tcp"))
