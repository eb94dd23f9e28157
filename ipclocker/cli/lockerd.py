"""lockerd: the lock server."""

import os
from pathlib import Path
from socket import SOCK_STREAM
from typing import Annotated, Optional

import typer

from ..daemon import daemonize as background
from ..daemon.state_dir import default_state_folder
from ..errors import UsageError
from ..lock.endpoint import endpoint
from ..lock.server.server import LockServer
from ..net.socket_activation import copies, take_inherited
from ..net.tcp_listener import raise_descriptor_limit
from .shared_options import Debug, LogFile, Nofork, PidFile
from .typer_support import parse, version_option

EXAMPLE = "lockerd --host 0.0.0.0 --pid-file /run/lockerd.pid"


def main(words: list[str]) -> int:
    """Run lockerd; the exit code."""
    return int(parse(lockerd, "lockerd", words, EXAMPLE)["code"])


def lockerd(
    port: Annotated[
        Optional[str],
        typer.Option(
            help="Port number or service name to listen on, or the name of a UNIX socket (it has a slash). "
            "[default: IPCLOCKER_PORT, else the service lockerd, else 1751]",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        Optional[str],
        typer.Option(help="Listen on a UNIX socket of this name, and on no port.", show_default=False),
    ] = None,
    host: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Address or name to listen on; may be given several times. 0.0.0.0 is all of IPv4, :: all of IPv6. "
            "[default: localhost]",
            show_default=False,
        ),
    ] = None,
    nofork: Nofork = False,
    pid_file: PidFile = None,
    log_file: LogFile = None,
    state: Annotated[
        Optional[str],
        typer.Option(
            help="File that held locks are kept in, so that they outlive the server; none: in memory only. "
            "[default: lockerd-PORT.db in the state folder]",
            show_default=False,
        ),
    ] = None,
    state_dir: Annotated[
        Optional[str],
        typer.Option(
            help="The state folder, made if there is none. [default: /var/lib/ipclocker for root, else "
            "~/.local/state/ipclocker]",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Serve locks to the hosts of a cluster.

    Goes to the background once it is listening, where it is started again if it dies. SIGTERM and SIGINT end it,
    SIGHUP starts it anew.
    """
    if state is not None and state_dir is not None:
        raise UsageError(f"--state '{state}' and --state-dir '{state_dir}' were given: choose one of them")
    if state == "":
        raise UsageError("--state is empty: it takes the name of a file, or none")
    # In the background the folder is another one.
    file = None if state is None or state == "none" else os.path.abspath(state)
    folder = os.path.abspath(state_dir or default_state_folder()) if state is None else None
    where = endpoint(port, path=path)
    inherited = take_inherited(SOCK_STREAM)
    socket_path = None if where.path is None else str(Path(where.path).absolute())

    def start() -> LockServer:
        raise_descriptor_limit()
        sockets = copies(inherited)
        server = LockServer(host or "localhost", where.port, "INET", socket_path, file, folder, sockets)
        server.handle_signals()
        return server

    code = background.run(start, name="lockerd", foreground=nofork, pid_file=pid_file, log_file=log_file, debug=debug)
    return {"code": code}
