"""lockerd: the lock server."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..daemon import background
from ..daemon.listen import raise_descriptor_limit
from ..errors import UsageError
from ..lock.endpoint import endpoint
from ..lock.server import LockServer
from .daemon_options import Debug, LogFile, Nofork, PidFile
from .parsing import parse, version_option


def main(words: list[str]) -> int:
    """Run lockerd; the exit code."""
    return int(parse(lockerd, "lockerd", words, "lockerd --host 0.0.0.0 --pid-file /run/lockerd.pid")["code"])


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
        str, typer.Option(help="Where held locks are kept: none, in memory only, so a restart forgets them.")
    ] = "none",
    debug: Debug = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Serve locks to the hosts of a cluster.

    Goes to the background once it is listening, where it is started again if it dies. SIGTERM and SIGINT end it,
    SIGHUP starts it anew.
    """
    if state != "none":
        raise UsageError(f"the state '{state}' is not known: it is none")
    where = endpoint(port, path=path)
    socket_path = None if where.path is None else str(Path(where.path).absolute())

    def start() -> LockServer:
        raise_descriptor_limit()
        server = LockServer(host or "localhost", where.port, path=socket_path)
        server.handle_signals()
        return server

    code = background.run(start, name="lockerd", foreground=nofork, pid_file=pid_file, log_file=log_file, debug=debug)
    return {"code": code}
