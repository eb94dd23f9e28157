"""pidstatd: the pid server."""

from pathlib import Path
from socket import SOCK_DGRAM
from typing import Annotated, Optional

import typer

from ..daemon import daemonize as background
from ..net.socket_activation import copies, take_inherited
from ..net.tcp_listener import raise_descriptor_limit
from ..pid.endpoint import pid_endpoint
from ..pid.server import PidServer
from .shared_options import Debug, LogFile, Nofork, PidFile
from .typer_support import parse, version_option

EXAMPLE = "pidstatd --pid-file /run/pidstatd.pid"


def main(words: list[str]) -> int:
    """Run pidstatd; the exit code."""
    return int(parse(pidstatd, "pidstatd", words, EXAMPLE)["code"])


def pidstatd(
    port: Annotated[
        Optional[str],
        typer.Option(
            help="Port number or service name to be asked on, or the name of a UNIX datagram socket (it has a slash). "
            "[default: the service pidstatd, else 1752]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Address or name to be asked on; may be given several times. [default: all addresses of this host]",
            show_default=False,
        ),
    ] = None,
    nofork: Nofork = False,
    pid_file: PidFile = None,
    log_file: LogFile = None,
    debug: Debug = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Say which processes of this host exist, to whoever asks by UDP.

    Goes to the background once it is listening, where it is started again if it dies. SIGTERM and SIGINT end it,
    SIGHUP starts it anew.
    """
    where = pid_endpoint(port)
    inherited = take_inherited(SOCK_DGRAM)
    place = str(where.port) if where.path is None else str(Path(where.path).absolute())

    def start() -> PidServer:
        raise_descriptor_limit()
        server = PidServer(place, host or None, copies(inherited))
        server.handle_signals()
        return server

    code = background.run(start, name="pidstatd", foreground=nofork, pid_file=pid_file, log_file=log_file, debug=debug)
    return {"code": code}
