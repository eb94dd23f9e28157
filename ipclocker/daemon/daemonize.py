"""Running a server: in the foreground or the background, with pid file, log, signals, and the restart by SIGHUP.

In the background there are two processes. The server does the work; its monitor (monitor.py) starts another one if
it dies. The process that the user started, the launcher, returns when the server is bound and serving, or with its
error:

    launcher --fork--> monitor --fork--> server
       ^---- status -----'  ^--- status ----'

In the foreground there is one process; but a server with processes of its own, which are to end with it however it
ends, has a monitor there, too (monitor.py, MonitorOptions).

Signals to a server, or to its monitor, which passes them on: SIGTERM and SIGINT end it, SIGHUP restarts it. From its
making to its close they belong to the service. While one is being made, SIGTERM and SIGINT end that, and SIGHUP asks
for nothing that is not being done already. At any other time they are held back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple, NoReturn, Optional

from ..errors import INTERNAL, OK, IpclockerError
from ..version import VERSION
from .detach import detach
from .log import one_line, set_up, with_priority
from .loop_server import LoopServer, ServerFactory
from .monitor import (
    SIGNALS,
    MonitorOptions,
    ReportStatus,
    ServerMonitor,
    StartupStatus,
    fork_with_signals_blocked,
    how_it_ended,
    parse_status,
    send_status,
)
from .pid_file import PidFile
from .sd_notify import SystemdNotifier, take_notifier

log = logging.getLogger(__name__)


class DaemonOptions(NamedTuple):
    """The options that every server has: to run in the foreground or not, its pid file and its log."""

    foreground: bool = False
    pid_file: Optional[str] = None
    log_file: Optional[str] = None
    debug: bool = False


def run(start: ServerFactory, name: str, options: DaemonOptions, monitoring: MonitorOptions | None = None) -> int:
    """Run the server that `start` makes, until it ends or, in the background, until it is serving.

    Returns an exit code; an error has been printed by then, as one line on stderr. `start` may raise
    IpclockerError. It is called again for each restart; in the background that is in another process and
    in the folder "/", so that paths have to be made absolute before. In the foreground, any other exception
    of the service is passed on. With `monitoring` there is a monitor in the foreground, too. The service manager that
    has started this process is notified (sd_notify.py).
    """
    _fill_standard_descriptors()
    notifier = take_notifier()
    daemon = _Daemon(start, name, PidFile(options.pid_file), options.log_file, monitoring or MonitorOptions(), notifier)
    try:
        set_up(name, foreground=options.foreground, log_file=options.log_file, debug=options.debug)
        daemon.pid_file.acquire()
        if not options.foreground:
            notifier.handed_over(daemon.run_in_background())
        elif monitoring is None:
            daemon.run_in_foreground()
        else:
            return daemon.monitor_in_foreground()
    except IpclockerError as error:
        notifier.failed(str(error))
        print(with_priority(logging.ERROR, one_line(f"{name}: {error}")), file=sys.stderr)
        return error.exit_code
    return OK


def _fill_standard_descriptors() -> None:
    """Open what the caller closed of 0, 1 and 2, or a socket or a log gets that number and is lost."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


class _Daemon(NamedTuple):
    """A server, and what its processes share."""

    start: ServerFactory
    name: str
    pid_file: PidFile
    log_file: Optional[str]
    monitoring: MonitorOptions
    notifier: SystemdNotifier

    def run_in_foreground(self) -> None:
        """Serve in this process."""
        try:
            self._serve(lambda status: None)
        except IpclockerError as error:
            if self.log_file is not None:  # else the line on stderr is enough
                log.error("%s", error)
            raise
        finally:
            self.pid_file.remove()

    def monitor_in_foreground(self) -> int:
        """Be the monitor of a server; its exit code. Raises IpclockerError if it was never ready."""

        def serve(report: ReportStatus) -> int:
            self.pid_file.close_in_parent()
            # What it logs before it is ready is the error that is to be printed.
            return self._serve_in_own_process(report, log_failure=self.log_file is not None)

        monitor = ServerMonitor(serve, lambda: None, self.monitoring._replace(restart=False))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            status = monitor.run()
        except OSError as error:
            raise IpclockerError(f"cannot start the server process: {error}") from error
        finally:
            self.pid_file.remove()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if status.code != OK and not monitor.was_ready:
            raise IpclockerError(status.text, status.code)
        return status.code

    def run_in_background(self) -> int:
        """Start a monitor and wait for its status; its pid. Raises IpclockerError if that is an error, or missing."""
        monitor, launcher = socket.socketpair()
        try:
            pid = fork_with_signals_blocked()
        except OSError as error:
            self.pid_file.remove()
            raise IpclockerError(f"cannot go to the background: {error}") from error
        if pid == 0:
            monitor.close()
            self._become_monitor(launcher)
        launcher.close()
        self.pid_file.close_in_parent()
        status = _receive_status(monitor)
        if status is None:
            how = _how_child_ended(pid)
            raise IpclockerError(f"the monitor process died before the server was ready ({how})")
        if status.code != OK:
            raise IpclockerError(status.text, status.code)
        return pid

    def _become_monitor(self, launcher: socket.socket) -> NoReturn:
        """Be the monitor, in the new process, with the signals still blocked."""
        exit_code = INTERNAL
        try:
            status = self._monitor(launcher)
            # The file is removed first: a user who reads the status may try again at once.
            self.pid_file.remove()
            send_status(launcher, status)
            exit_code = status.code
        except BaseException:
            log.exception("the monitor ends by an error of its own")
        finally:
            os._exit(exit_code)

    def _monitor(self, launcher: socket.socket) -> StartupStatus:
        def serve(report: ReportStatus) -> int:
            launcher.close()
            self.pid_file.close_in_parent()
            return self._serve_in_own_process(report)

        def ready() -> None:
            with launcher:
                launcher.sendall(f"{OK} ".encode())

        detach()
        try:
            self.pid_file.write()
            return ServerMonitor(serve, ready, self.monitoring).run()
        except (IpclockerError, OSError) as error:
            return StartupStatus(getattr(error, "exit_code", INTERNAL), str(error))

    def _serve_in_own_process(self, report: ReportStatus, log_failure: bool = True) -> int:
        was_ready = False

        def report_ready(status: StartupStatus) -> None:
            nonlocal was_ready
            was_ready = True
            report(status)

        try:
            self._serve(report_ready)
        except IpclockerError as error:
            if log_failure or was_ready:
                log.error("%s", error)
            report(StartupStatus(error.exit_code, str(error)))
            return error.exit_code
        except Exception as error:
            log.exception("the server ends by an error of its own")
            report(StartupStatus(INTERNAL, f"an error of its own: {error!r}"))
            return INTERNAL
        return OK

    def _serve(self, report_ready: ReportStatus) -> None:
        """Start and serve, and again, until the service is to end."""
        with _signals_between_services(), contextlib.suppress(_Stopped):
            while self._serve_once(report_ready):
                log.info("%s is started anew", self.name)
        log.info("%s ends", self.name)

    def _serve_once(self, report_ready: ReportStatus) -> bool:
        service: LoopServer | None = None
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            service = self.start()
            log.info("%s %s, %s", self.name, VERSION, service.describe())
            report_ready(StartupStatus(OK))
            self.notifier.ready(service.describe())
            self.notifier.keep_alive(service.loop)
            restarts = False
            try:
                restarts = service.run()
            finally:
                (self.notifier.reloading if restarts else self.notifier.stopping)()
            return restarts
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            if service is not None:
                service.close()


def _receive_status(monitor: socket.socket) -> StartupStatus | None:
    received = b""
    with monitor:
        while chunk := monitor.recv(4096):
            received += chunk
    return parse_status(received)


def _how_child_ended(pid: int) -> str:
    try:
        return how_it_ended(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # we were started with SIGCHLD ignored
        return "it is not known how"


class _Stopped(BaseException):
    """SIGTERM or SIGINT came while the server was being started."""


@contextlib.contextmanager
def _signals_between_services() -> Iterator[None]:
    """Set handlers for the time when no service has its own; in the end everything is as it was before."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    handlers = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, _raise_stopped),
        signal.SIGINT: signal.signal(signal.SIGINT, _raise_stopped),
        signal.SIGHUP: signal.signal(signal.SIGHUP, lambda number, frame: None),
    }
    try:
        yield
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)  # drops a signal that has come too late to matter
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    raise _Stopped
