"""pidstatd: the pid server."""

from __future__ import annotations

from pathlib import Path
from socket import SOCK_DGRAM

from ..daemon import daemonize
from ..daemon.inheritance import Inheritance
from ..pid.endpoint import pid_endpoint
from ..pid.server import PidServer
from .command_line import CommandLine, option
from .shared_options import DEBUG, LOG_FILE, NOFORK, PID_FILE, pidstatd_port


class Pidstatd(CommandLine, name="pidstatd", example="pidstatd --pid-file /run/pidstatd.pid"):
    """Say which processes of this host exist, to whoever asks by UDP.

    Goes to the background once it is listening, where it is started again if it dies. SIGTERM and SIGINT end it,
    SIGHUP starts the file as it is now in its place.
    """

    port: str | None = pidstatd_port(
        "Port number or service name to be asked on, or the name of a UNIX datagram socket (it has a slash)."
    )
    host: list[str] = option(
        "Address or name to be asked on; may be given several times.",
        otherwise="all addresses of this host",
        many=True,
    )
    nofork: bool = NOFORK
    pid_file: str | None = PID_FILE
    log_file: str | None = LOG_FILE
    debug: bool = DEBUG

    def run(self) -> int:
        """Serve until told to end; the exit code."""
        where = pid_endpoint(self.port)
        place = str(where.port) if where.path is None else str(Path(where.path).absolute())

        def start(inherited: Inheritance) -> PidServer:
            return PidServer(place, self.host or None, None, inherited)

        options = daemonize.DaemonOptions(self.nofork, self.pid_file, self.log_file, self.debug)
        return daemonize.run(start, "pidstatd", options, kind=SOCK_DGRAM)


COMMAND_LINES = (Pidstatd,)
