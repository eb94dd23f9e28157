"""The [Socket] sections of systemd's socket units (systemd.socket(5)), made of the daemons' command lines."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, Optional

from ..errors import UsageError
from ..lock.endpoint import DEFAULT_PORT, SERVICE, endpoint
from ..net.address import is_socket_path, service_port
from ..pid.endpoint import pid_endpoint
from .quoting import setting

_LOOPBACK = ("127.0.0.1", "::1")
_BACKLOG = "Backlog=4096"
_EARLY = "FreeBind=yes"  # also when the address is not there yet, or this host has no IPv6


def lockerd_sockets(options: dict[str, Any]) -> list[str]:
    """Make the lines of [Socket] for a lockerd with these options. Raises UsageError."""
    # IPCLOCKER_PORT does not count: it belongs to the user who makes the unit, not to the daemon.
    port: Optional[str] = options["port"]
    if port is None and options["path"] is None:
        port = str(service_port(SERVICE, "tcp", DEFAULT_PORT))
    where = endpoint(port, path=options["path"])
    if where.path is not None:
        return [f"ListenStream={_path(where.path)}", _BACKLOG]
    hosts = options["host"] or ["localhost"]
    return [
        *(f"ListenStream={place}" for place in _places(hosts, where.port)),
        "BindIPv6Only=ipv6-only",
        _EARLY,
        _BACKLOG,
    ]


def pidstatd_sockets(options: dict[str, Any]) -> list[str]:
    """Make the lines of [Socket] for a pidstatd with these options. Raises UsageError."""
    where = pid_endpoint(options["port"])
    buffer = "ReceiveBuffer=8M"  # questions that may wait: a burst is not to be lost
    if where.path is not None:
        return [f"ListenDatagram={_path(where.path)}", buffer]
    if not options["host"]:
        return [f"ListenDatagram={_known(where.port)}", "BindIPv6Only=both", buffer]
    lines = [f"ListenDatagram={place}" for place in _places(options["host"], where.port)]
    return [*lines, "BindIPv6Only=ipv6-only", _EARLY, buffer]


def prefork_sockets(options: dict[str, Any]) -> list[str]:
    """Make the lines of [Socket] for a prefork with these options. Raises UsageError."""
    listen: str = options["listen"] or ""
    kind, _, path = listen.partition(":")
    host, _, port = listen.rpartition(":")
    if kind == "unix" and path:
        lines = [f"ListenStream={_path(path)}", f"SocketMode={options['socket_mode'] or '0660'}"]
        user, _, group = (options["socket_owner"] or "").partition(":")
        lines += [f"SocketUser={setting(user)}"] if user else []
        lines += [f"SocketGroup={setting(group)}"] if group else []
    elif host and port.isascii() and port.isdigit():
        lines = [f"ListenStream={place}" for place in _places([host.strip("[]")], int(port))[:1]]
    else:
        raise UsageError(f"--listen '{listen}' is nothing that systemd can open: it has to be HOST:PORT or unix:PATH")
    return [*lines, f"Backlog={options['backlog']}"]


def _places(hosts: list[str], port: int) -> list[str]:
    return [f"{address}:{_known(port)}" for host in hosts for address in _addresses(host.strip("[]"))]


def _addresses(host: str) -> list[str]:
    if host in ("localhost", ""):
        return [_LOOPBACK[0], f"[{_LOOPBACK[1]}]"]
    for family, written in ((socket.AF_INET, "{}"), (socket.AF_INET6, "[{}]")):
        with contextlib.suppress(OSError, UnicodeError):
            return [written.format(socket.inet_ntop(family, socket.inet_pton(family, host)))]
    raise UsageError(f"a socket unit takes addresses, and '{host}' is none: write the host's address")


def _known(port: int) -> int:
    if port == 0:
        raise UsageError("port 0 is any that is free, which a socket unit can't take: write a number")
    return port


def _path(path: str) -> str:
    if not os.path.isabs(path) or not is_socket_path(path):
        raise UsageError(f"the socket's name '{path}' is none from the root folder on: systemd takes no other")
    return setting(path)
