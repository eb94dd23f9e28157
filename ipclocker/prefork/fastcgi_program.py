"""Keeps copies of a FastCGI program: a ProcManager whose workers execute it, with the socket as descriptor 0.

FastCGI asks for no more than that. Besides, each worker leads a process group: so ^C of the terminal reaches none, and
its group can be killed with it. The kernel sends it the stop signal if the manager dies.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Mapping
from math import inf
from typing import Any, NoReturn

from ..daemon.log import one_line
from ..daemon.sd_notify import SystemdNotifier
from ..errors import CANNOT_EXECUTE, INTERNAL, NOT_FOUND, UsageError
from ..process import libc
from ..process.command_line import find_program
from ..process.spawn import become, restore_signals
from ..process.stderr import print_stderr
from .listen_socket import ListenSocket
from .manager import ProcManager
from .pool import Pool
from .socket_watch import SocketWatch
from .worker_channel import WorkerEnd
from .workers import WorkerProcesses

# Seconds after which a program counts as up, unless start_delay is given: most that can't run end sooner.
UP_AFTER = 1.0

log = logging.getLogger(__name__)


class FastCgiManager(ProcManager):
    """Manages copies of a program. `pm_manage` does not return."""

    def __init__(
        self,
        words: list[str],
        environment: Mapping[str, str],
        listen_socket: ListenSocket,
        *,
        stop_signal: int = signal.SIGTERM,
        logs: bool = False,
        notifier: SystemdNotifier,
        **parameters: Any,
    ) -> None:
        """Take the words to execute, the environment of the copies, and the socket that they share.

        Where start_delay is not given, there is none, and a program that does not say that it is up counts as up after
        UP_AFTER seconds. `logs`: messages go to the log, else to stderr. `notifier`: how a service manager is told
        that it is ready or ends. Raises UsageError as ProcManager, and if the program can't be executed (with the exit
        code of a shell). The other `parameters` are those of ProcManager.
        """
        super().__init__(**parameters)
        self._words = words
        self._environment = dict(environment)
        self._program = find_program(words[0], environment)
        self._listen_socket = listen_socket
        self._stop_signal = stop_signal
        self._logs = logs
        self._notifier = notifier
        self._socket_watch: SocketWatch | None = None  # while it manages
        self._up_after = self.start_delay() if "start_delay" in parameters else UP_AFTER
        if self._program is None or not os.access(self._program, os.X_OK):
            problem = f"cannot execute '{words[0]}': there is no such program, or it is not executable"
            raise UsageError(problem, NOT_FOUND if self._program is None else CANNOT_EXECUTE)

    def managing_init(self) -> None:
        """Prepare the manager as ProcManager does, and tell where the programs listen."""
        super().managing_init()
        self.pm_notify(f"listening on {self._listen_socket}")
        self._notifier.ready(f"listening on {self._listen_socket}")
        if self._workers is not None:
            self._notifier.keep_alive(self._workers.loop)
            self._socket_watch = SocketWatch(
                self._workers.loop, self._listen_socket, self.pm_notify, self._workers.renew
            )

    def pm_die(self, msg: str = "", n: int = 0) -> NoReturn:
        """End as ProcManager does; a service manager is told before."""
        self._notifier.stopping()
        if self._socket_watch is not None:
            self._socket_watch.close()
            self._socket_watch = None
        super().pm_die(msg, n)

    def pm_write_pid_file(self, fname: str | None = None) -> None:
        """Write the pid file; raise UsageError if it can't be written or is another manager's."""
        path = fname or self.pid_fname()
        if path:
            self._pid_files.write(path)

    def pm_notify(self, msg: str) -> None:
        """Print a message, or log it if that was asked for."""
        if self._logs:
            log.info("%s", msg.rstrip())
        else:
            # A terminal may send SIGTTOU to a process that writes in its background; that has another meaning here.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            print_stderr(self._message(one_line(msg.rstrip())))
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _new_workers(self) -> WorkerProcesses:
        within = self.die_timeout() or inf
        return WorkerProcesses(Pool(random.random), self.pm_notify, within, self._stop_signal, groups=True)

    def _adjust(self, workers: WorkerProcesses) -> None:
        super()._adjust(workers)
        workers.pool.up_after = self._up_after

    def _become_worker(self, channel: WorkerEnd, manager: int, mask: set[int]) -> NoReturn:
        status = INTERNAL
        try:
            os.setpgid(0, 0)
            libc.die_with_parent(self._stop_signal)
            if os.getppid() != manager:
                os._exit(status)  # it ended before it could have taken us with it
            self._listen_socket.restore()
            listener = self._listen_socket.socket.fileno()
            if listener != 0:
                os.dup2(listener, 0)
            os.set_inheritable(0, True)
            environment = dict(self._environment)
            channel.pass_on(environment)
            assert self._workers is not None
            self._workers.mark(environment)
            restore_signals()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = become("prefork", self._program, self._words, None, environment)
        finally:
            os._exit(status)
