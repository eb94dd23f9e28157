"""ProcManager: keeps a number of workers that each handle requests, with the interface of FCGI::ProcManager.

    manager = ProcManager(n_processes=4)
    manager.pm_manage()                            # returns in each worker
    while True:
        connection, address = listener.accept()    # or however a FastCGI library waits for a request
        manager.pm_pre_dispatch()
        handle(connection)
        connection.close()
        manager.pm_post_dispatch()

In the process that calls it, `pm_manage` becomes the manager: it makes workers by fork(2), and others when they end.
In each worker it returns. From then on a worker is told to stop by SIGTERM or SIGHUP. Between pm_pre_dispatch and
pm_post_dispatch that is only noted, and pm_post_dispatch ends the process; otherwise it ends at once, unless there is
a connection that was accepted already (worker_requests.py). To end is to raise SystemExit.

Signals to the manager: TERM and INT end it (pm_die), HUP renews the workers, TTIN adds one, TTOU takes one away.

A worker may be managed by another program, too, which `ipclocker prefork` is: then n_processes is 0.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
from math import inf
from types import FrameType
from typing import Any, Callable, NoReturn, Optional

from ..errors import UsageError
from ..parameters import UNCHANGED, given
from ..process import libc
from ..process.proctitle import set_title
from ..process.signal_names import signal_name
from .parameters import MOST_PROCESSES, Parametrized
from .pid_files import PidFiles
from .pool import Pool
from .worker_channel import WorkerEnd, flush_output, fork_with_channel
from .worker_requests import Requests, has_connection
from .workers import WorkerProcesses

_MANAGER_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
_WORKER_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_WORKER_TITLE = "perl-fcgi"

log = logging.getLogger(__name__)


class ProcManager(Parametrized):
    """A manager, and in its workers the means to handle requests under it. To be used in the main thread."""

    def __init__(
        self,
        *,
        n_processes: int = 0,
        start_delay: float = 0.0,
        die_timeout: Optional[float] = 60.0,
        pid_fname: Optional[str] = None,
        pm_title: Optional[str] = "perl-fcgi-pm",
        no_signals: bool = False,
        role: str = "manager",
        rolling: bool = True,
        max_requests: Optional[int] = None,
        max_size: Optional[int] = None,
        sizecheck_num_requests: Optional[int] = None,
        request_timeout: float = 0.0,
    ) -> None:
        """Take the parameters. All times are in seconds.

        n_processes: the number of workers; below 1, requests are handled in this process
        start_delay: the least time between the starts of two workers
        die_timeout: the time that workers have to end before they are killed; 0 or None: as long as it takes
        pid_fname: the file that names the manager's process; None: there is none
        pm_title: the name of the manager's process, as ps(1) shows it; None: it is left
        no_signals: True if signals other than SIGCHLD are left alone
        role: "manager" or "server", which a process is set to as it becomes one
        rolling: True if on SIGHUP each worker is told to stop when its replacement is up, False for all at once
        max_requests: the number of requests after which a worker ends; 0: never; None: the environment's
            PM_MAX_REQUESTS, else 0
        max_size: the kilobytes of resident memory above which a worker ends after its request; 0: any; None: the
            environment's PM_MAX_SIZE, else 0
        sizecheck_num_requests: the number of requests from one check of the size to the next; None: the environment's
            PM_SIZECHECK_NUM_REQUESTS, else 1
        request_timeout: the time that a request may take before the manager kills its worker; 0: any

        Raises UsageError for a value that means nothing.
        """
        super().__init__(given(locals()))
        self._level = logging.INFO  # of what pm_notify logs
        self._received: dict[str, int] = {}
        self._on_signal: Callable[[str], object] | None = None
        self._pid_files = PidFiles()
        self._workers: WorkerProcesses | None = None  # in a manager
        self._manager_pid: int | None = None  # in a worker
        self._requests = Requests()
        self._waits = False  # in a worker: True while a signal ends it at once

    # In the manager

    def pm_manage(
        self,
        *,
        n_processes: int = UNCHANGED,
        start_delay: float = UNCHANGED,
        die_timeout: Optional[float] = UNCHANGED,
        pid_fname: Optional[str] = UNCHANGED,
        pm_title: Optional[str] = UNCHANGED,
        no_signals: bool = UNCHANGED,
        role: str = UNCHANGED,
        rolling: bool = UNCHANGED,
        max_requests: int = UNCHANGED,
        max_size: int = UNCHANGED,
        sizecheck_num_requests: int = UNCHANGED,
        request_timeout: float = UNCHANGED,
    ) -> int:
        """Become the manager, with these parameters changed; return 1 in each worker.

        The manager ends by SystemExit. With n_processes below 1 there is none, and this process is the worker.
        Raises UsageError as the constructor does, and if this is not the main thread, which alone has signals.
        """
        self._set(given(locals()))
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("pm_manage was called in a thread: call it in the main thread, before there are others")
        if self.n_processes() < 1:
            self._requests = Requests(WorkerEnd.from_environment(os.environ))
            return self._handle()
        self.role("manager")
        self._workers = workers = self._new_workers()
        self.managing_init()
        self.pm_notify("initialized")
        while self.n_processes() > 0:
            self._adjust(workers)
            while workers.wants():
                if self._start_worker(workers):
                    return self._handle()
            self.pm_wait()
        return self.pm_die("no processes are wanted")

    def managing_init(self) -> None:
        """Prepare the manager: signals, its name and its pid file. An override has to call this one."""
        if not self.no_signals():
            assert self._workers is not None
            self._workers.take_signals(_MANAGER_SIGNALS)
            self._on_signal = self.sig_manager
        self.pm_change_process_name(self.pm_parameter("pm_title"))
        self.pm_write_pid_file()

    def pm_die(self, msg: str = "", n: int = 0) -> NoReturn:
        """End the manager: tell the workers to stop, wait for them, and exit with status `n`.

        If some are left when die_timeout seconds are over, they are killed, and the exit status is 1.
        """
        self._on_signal = None
        self.pm_remove_pid_file()
        if self._workers is not None:
            self._workers.begin_to_end(self.die_timeout() or inf)
            while not self._workers.are_gone:
                self.pm_wait()
                if self._workers.is_overdue:
                    self.pm_abort("wait timeout")
        self.pm_exit(f"dying: {msg}", n)

    def pm_wait(self) -> int | None:
        """Wait until a worker has ended, and return its pid; None if something else has happened before."""
        workers = self._workers
        if workers is None:
            return None
        workers.turn()
        exited = workers.next_exit()
        if exited is not None:
            self.pm_notify(f"server (pid {exited.pid}) {exited.text}")
            return exited.pid
        number = workers.next_signal()
        if number is not None:
            self.sig_sub(signal_name(number))
        return None

    def sig_manager(self, name: str) -> None:
        """Do what a signal ("TERM") means to the manager."""
        if name in ("TERM", "INT"):
            self.pm_notify(f"received signal {name}")
            self.pm_die(f"safe exit from signal {name}")
        elif name == "HUP":
            self.pm_notify(f"received signal {name}")
            if self._workers is not None:
                self._workers.renew()
        elif name in ("TTIN", "TTOU"):
            wanted = self.n_processes() + (1 if name == "TTIN" else -1)
            number = self.n_processes(min(max(wanted, 1), MOST_PROCESSES))
            self.pm_notify(f"received signal {name}, n_processes is {number}")
        else:
            self.pm_notify(f"ignoring signal {name}")

    def pm_write_pid_file(self, fname: str | None = None) -> None:
        """Write this process's pid to the file, or to pid_fname. A file that can't be written is only mentioned."""
        path = fname or self.pid_fname()
        if path:
            try:
                self._pid_files.write(path)
            except UsageError as problem:
                self.pm_warn(str(problem))

    def pm_remove_pid_file(self, fname: str | None = None) -> bool:
        """Remove the file, or pid_fname, unless it is another manager's by now; return False if it can't be."""
        path = fname or self.pid_fname()
        if not path:
            return False
        try:
            self._pid_files.remove(path)
        except OSError as problem:
            self.pm_warn(f"unlink: {path}: {problem.strerror}")
            return False
        return True

    # In a worker

    def handling_init(self) -> None:
        """Prepare a worker: signals and its name. An override has to call this one."""
        if not self.no_signals():
            for number in _WORKER_SIGNALS:
                signal.signal(number, self._caught)
            if self._manager_pid is not None:
                # ^C goes to all processes of the terminal: the manager gets it, too, and ends us in good order.
                signal.signal(signal.SIGINT, _do_nothing)
                signal.siginterrupt(signal.SIGINT, False)
            self._on_signal = self.sig_handler
        self.pm_change_process_name(_WORKER_TITLE)
        random.seed()

    def pm_pre_dispatch(self) -> None:
        """Begin a request: until pm_post_dispatch a signal that tells this process to stop is only noted."""
        self._waits = False
        self._restart_calls(True)
        self._requests.begin(self.request_timeout())

    def pm_post_dispatch(self) -> None:
        """End a request, whose connection is closed. Raises SystemExit if this process was told to stop, or has to."""
        self._requests.end()
        limit = self._requests.limit(self.max_requests(), self.max_size(), self.sizecheck_num_requests())
        if limit is not None:
            self.pm_exit(f"safe exit after {limit}")
        self._restart_calls(False)
        self._wait_for_requests()
        if self._manager_pid is not None and os.getppid() != self._manager_pid:
            self.pm_exit("safe exit: manager has died")

    def sig_handler(self, name: str) -> None:
        """Take note of a signal to a worker."""
        self.pm_received_signal(name, True)

    # In both

    def sig_sub(self, name: str) -> None:
        """Pass a signal on to sig_manager in a manager, to sig_handler in a worker, to nothing in between."""
        if self._on_signal is not None:
            self._on_signal(name)

    def pm_change_process_name(self, name: str | None) -> None:
        """Show this process under that name in ps(1), as far as there is room; None: leave it."""
        if name is not None:
            set_title(name)

    def pm_received_signal(self, sig: str | None = None, received: bool = False) -> Any:
        """Return how often a signal ("TERM") was noted, once more now if `received`; without a name, a dict of all."""
        if sig is None:
            return dict(self._received)
        if received:
            self._received[sig] = self._received.get(sig, 0) + 1
        return self._received.get(sig, 0)

    def pm_warn(self, msg: str) -> None:
        """Log a warning, by `pm_notify`."""
        self._level = logging.WARNING
        try:
            self.pm_notify(msg)
        finally:
            self._level = logging.INFO

    def pm_notify(self, msg: str) -> None:
        """Log a message, behind the role and the pid of this process: of level INFO, or WARNING for `pm_warn`."""
        # A terminal may send SIGTTOU to a process that writes in its background; that has another meaning here.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        log.log(self._level, "%s", self._message(msg))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def pm_exit(self, msg: str, n: int = 0) -> NoReturn:
        """Log the message, kill workers that are left, and raise SystemExit with that status."""
        self._waits = False
        if self._workers is not None:
            self._workers.kill(msg)
            while self._workers.has_exits:
                self.pm_wait()
            self._workers.close()
            self._workers = None
        self.pm_warn(msg)
        sys.exit(n)

    def pm_abort(self, msg: str, n: int = 1) -> NoReturn:
        """End this process as `pm_exit` does, with a status that is not 0."""
        self.pm_exit(msg, n or 1)

    # Inside

    def _message(self, msg: str) -> str:
        return f"FastCGI: {self.role()} (pid {os.getpid()}): {msg.rstrip()}"

    def _new_workers(self) -> WorkerProcesses:
        return WorkerProcesses(Pool(random.random), self.pm_notify, self.die_timeout() or inf)

    def _adjust(self, workers: WorkerProcesses) -> None:
        """Apply the parameters, which may have changed."""
        workers.pool.start_delay = workers.pool.up_after = self.start_delay()
        workers.pool.rolling = self.rolling()
        workers.patience = self.die_timeout() or inf
        workers.tell_to_stop(workers.pool.resize(self.n_processes()))

    def _start_worker(self, workers: WorkerProcesses) -> bool:
        """Make a worker; return True in that."""
        flush_output()
        manager = os.getpid()
        # A signal to the worker before it has handlers of its own would be taken as one to the manager.
        before: set[int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))
        try:
            channel, pid = fork_with_channel()
        except OSError as problem:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self.pm_warn(f"fork: {problem.strerror}; tried again in {workers.start_failed():.1f} s")
            return False
        if pid == 0:
            channel.close()
            workers.detach_after_fork()
            self._become_worker(channel.worker, manager, before)
        else:
            workers.started(pid, channel)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid != 0:
            self.pm_notify(f"server (pid {pid}) started")
        return pid == 0

    def _become_worker(self, channel: WorkerEnd, manager: int, mask: set[int]) -> None:
        """In the new process, with all signals blocked; before, only those of the mask were."""
        assert self._workers is not None
        self._workers.mark(os.environ)
        self._workers = None
        self._on_signal = None
        self._pid_files.close_after_fork()
        self._manager_pid = manager
        libc.die_with_parent(signal.SIGTERM)
        channel.take()
        self._requests = Requests(channel)

    def _handle(self) -> int:
        """Become a worker; return what pm_manage returns."""
        self.role("server")
        if self._manager_pid is not None and os.getppid() != self._manager_pid:
            self.pm_exit("safe exit: manager has died")  # before it could have taken us with it
        self.handling_init()
        self.pm_notify("initialized")
        if self.request_timeout() and not self._requests.are_watched:
            self.pm_warn("there is no manager that could end a request which takes longer than request_timeout")
        self._requests.report_ready()
        self._wait_for_requests()
        return 1

    def _wait_for_requests(self) -> None:
        """Let a signal end this process at once from here on; end it if one has come before."""
        self._waits = not self.no_signals()
        for name in ("TERM", "HUP"):
            if self.pm_received_signal(name):
                self._stop(name)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal to a worker. Python calls this in the main thread, between any two of its steps."""
        name = signal_name(number)
        self.sig_sub(name)
        if self._waits and self.pm_received_signal(name) and not has_connection():
            self._stop(name)

    def _stop(self, name: str) -> NoReturn:
        self._waits = False
        self._requests.report_asked()
        self.pm_exit(f"safe exit after SIG{name}")

    def _restart_calls(self, restart: bool) -> None:
        """Have a system call that a signal interrupts go on, or fail; also one that is not Python's."""
        if not self.no_signals():
            for number in _WORKER_SIGNALS:
                signal.siginterrupt(number, not restart)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing. Not SIG_IGN: programs that a worker starts would inherit that."""
