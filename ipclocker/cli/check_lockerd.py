"""check-lockerd: whether a lock server answers, as a monitoring plugin."""

import time
from socket import socket
from typing import Annotated, Optional

import typer

from .. import Locker
from ..lock.client.connection import wait_ready
from . import monitoring_plugin as plugin
from .typer_support import version_option

EXAMPLE = "check-lockerd -H lockhost -w 0.1 -c 1"


def main(words: list[str]) -> int:
    """Run check-lockerd; the exit code."""
    return plugin.run(check_lockerd, "check-lockerd", words, EXAMPLE)


def check_lockerd(
    host: Annotated[
        Optional[str],
        typer.Option("-H", "--host", help="Host of lockerd. [default: IPCLOCKER_HOST, else localhost]"),
    ] = None,
    port: Annotated[
        Optional[str],
        typer.Option(
            "-p",
            "--port",
            help="Port number or service name of lockerd, or the name of its UNIX socket (it has a slash). "
            "[default: IPCLOCKER_PORT, else the service lockerd, else 1751]",
            show_default=False,
        ),
    ] = None,
    warning: Annotated[Optional[float], plugin.warning()] = None,
    critical: Annotated[Optional[float], plugin.critical()] = None,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Say whether a lock server answers, and how fast, in one line with performance data.

    Exit codes: 0 it does, 1 it is slow, 2 it does not or is too slow, 3 the check could not be done.
    """
    until = time.monotonic() + plugin.PATIENCE

    def wait(sock: Optional[socket], events: int, deadline: float) -> bool:
        return wait_ready(sock, events, min(deadline, until))

    locker = Locker(wait=wait, host=host, port=port, connect_tries=1)
    ping = locker.ping_status()
    return plugin.report("LOCKERD", ping["ok"], ping["status"], warning, critical)
