"""lockerd: the lock server."""

from __future__ import annotations

import os
from pathlib import Path
from socket import SOCK_STREAM

from ..daemon import daemonize
from ..daemon.state_dir import default_state_folder
from ..errors import UsageError
from ..lock.endpoint import endpoint
from ..lock.server.server import LockServer
from ..net.socket_activation import copies, take_inherited
from ..net.tcp_listener import raise_descriptor_limit
from .command_line import CommandLine, option
from .shared_options import DEBUG, LOG_FILE, NOFORK, PID_FILE, lockerd_port


class Lockerd(CommandLine, name="lockerd", example="lockerd --host 0.0.0.0 --pid-file /run/lockerd.pid"):
    """Serve locks to the hosts of a cluster.

    Goes to the background once it is listening, where it is started again if it dies. SIGTERM and SIGINT end it,
    SIGHUP starts it anew.
    """

    port: str | None = lockerd_port(
        "Port number or service name to listen on, or the name of a UNIX socket (it has a slash)."
    )
    path: str | None = option("Listen on a UNIX socket of this name, and on no port.")
    host: list[str] = option(
        "Address or name to listen on; may be given several times. 0.0.0.0 is all of IPv4, :: all of IPv6.",
        otherwise="localhost",
        many=True,
    )
    nofork: bool = NOFORK
    pid_file: str | None = PID_FILE
    log_file: str | None = LOG_FILE
    state: str | None = option(
        "File that held locks are kept in, so that they outlive the server; none: in memory only.",
        otherwise="lockerd-PORT.db in the state folder",
    )
    state_dir: str | None = option(
        "The state folder, made if there is none.",
        otherwise="/var/lib/ipclocker for root, else ~/.local/state/ipclocker",
    )
    debug: bool = DEBUG

    def run(self) -> int:
        """Serve until told to end; the exit code."""
        if self.state is not None and self.state_dir is not None:
            raise UsageError(
                f"--state '{self.state}' and --state-dir '{self.state_dir}' were given: choose one of them"
            )
        if self.state == "":
            raise UsageError("--state is empty: it takes the name of a file, or none")
        # In the background the folder is another one.
        file = None if self.state is None or self.state == "none" else os.path.abspath(self.state)
        folder = os.path.abspath(self.state_dir or default_state_folder()) if self.state is None else None
        where = endpoint(self.port, path=self.path)
        inherited = take_inherited(SOCK_STREAM)
        socket_path = None if where.path is None else str(Path(where.path).absolute())

        def start() -> LockServer:
            raise_descriptor_limit()
            sockets = copies(inherited)
            server = LockServer(self.host or "localhost", where.port, "INET", socket_path, file, folder, sockets)
            server.handle_signals()
            return server

        options = daemonize.DaemonOptions(self.nofork, self.pid_file, self.log_file, self.debug)
        return daemonize.run(start, "lockerd", options)


COMMAND_LINES = (Lockerd,)
