"""lockerd: the lock server."""

from __future__ import annotations

import os
from pathlib import Path
from socket import SOCK_STREAM

from ..daemon import daemonize
from ..daemon.inheritance import Inheritance
from ..daemon.state_dir import default_state_folder
from ..errors import OK, UsageError
from ..lock.endpoint import endpoint
from ..lock.server.server import IDLE_TIMEOUT, LONGEST_TTL, SHORTEST_TTL, TTL, LockServer
from ..lock.storage.etcd_settings import EtcdSettings
from .command_line import flag, number, option, seconds
from .etcd_options import EtcdOptions
from .shared_options import DEBUG, LOG_FILE, NOFORK, PID_FILE, lockerd_port


class Lockerd(EtcdOptions, name="lockerd", example="lockerd --host 0.0.0.0 --pid-file /run/lockerd.pid"):
    """Serve locks to the hosts of a cluster.

    Goes to the background once it is listening, where it is started again if it dies. SIGTERM and SIGINT end it,
    SIGHUP starts the file as it is now in its place.
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
    idle_timeout: float = seconds(
        "Close a connection that holds and waits for nothing after so long a silence; 0: never.", default=IDLE_TIMEOUT
    )
    leader_ttl: int | None = number(
        "SECONDS",
        "With --etcd: let another lockerd serve so long after this one was last heard of.",
        otherwise=str(TTL),
        lowest=SHORTEST_TTL,
        highest=LONGEST_TTL,
    )
    etcd_compaction: bool = flag(
        "With --etcd: drop etcd's old revisions each minute.", "--etcd-compaction", "--no-etcd-compaction", default=True
    )
    import_file: str | None = option(
        "With --etcd: take the locks of this state file into an empty place in etcd, and end.",
        "--import",
        value="FILE",
    )
    accept_restored: bool = flag(
        "With --etcd: take an etcd that has lost locks (it was restored from a backup) as it is, and end."
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
        etcd = self.etcd_settings()
        if etcd is None and self.leader_ttl is not None:
            raise self.wrong(f"--leader-ttl '{self.leader_ttl}' is of no use without --etcd")
        if etcd is not None and self.state is not None:
            raise UsageError(
                f"--state '{self.state}' and --etcd '{','.join(etcd.urls)}' were given: choose one of them (--import "
                "takes the locks of a file into etcd)"
            )
        # In the background the folder is another one.
        file = None if self.state is None or self.state == "none" else os.path.abspath(self.state)
        folder = os.path.abspath(self.state_dir or default_state_folder()) if self.state is None else None
        where = endpoint(self.port, path=self.path)
        if self.import_file is not None or self.accept_restored:
            return self._prepare_etcd(etcd, folder, where.port)
        socket_path = None if where.path is None else str(Path(where.path).absolute())

        def start(inherited: Inheritance) -> LockServer:
            host, idle = self.host or "localhost", self.idle_timeout
            shared = (etcd, self.leader_ttl or TTL, self.etcd_compaction)
            return LockServer(host, where.port, "INET", socket_path, file, folder, None, idle, *shared, inherited)

        options = daemonize.DaemonOptions(self.nofork, self.pid_file, self.log_file, self.debug)
        return daemonize.run(start, "lockerd", options, kind=SOCK_STREAM)

    def _prepare_etcd(self, etcd: EtcdSettings | None, folder: str | None, port: int) -> int:
        """Do what has to be done once, before lockerd is started with etcd; the exit code."""
        option = f"--import '{self.import_file}'" if self.import_file is not None else "--accept-restored"
        if etcd is None:
            raise self.wrong(f"{option} is of no use without --etcd")
        if self.import_file is not None and self.accept_restored:
            raise self.wrong(f"{option} and --accept-restored were given: choose one of them")
        if self.import_file is not None:
            from ..lock.server.importing import import_file

            print(import_file(etcd, self.import_file, self.leader_ttl or TTL))
        else:
            from ..lock.server.etcd_watch import accept_restored

            assert folder is not None
            print(accept_restored(etcd, folder, port))
        return OK


COMMAND_LINES = (Lockerd,)
