"""Running a server: in the foreground or the background, with pid file, log, signals, and the restart by SIGHUP.

In the background there are two processes. The server does the work; its monitor (monitor.py) starts another one if
it dies. The process that the user started, the launcher, returns when the server is bound and serving, or with its
error:

    launcher --fork--> monitor --fork--> server
       ^---- status -----'  ^--- status ----'

In the foreground there is one process; but a server with processes of its own, which are to end with it however it
ends, has a monitor there, too (monitor.py, MonitorOptions).

Signals to a server, or to its monitor, which passes them on: SIGTERM and SIGINT end it, SIGHUP restarts it. From its
making to its close they belong to the service. While one is being made, SIGTERM and SIGINT end that, and SIGHUP waits.
At any other time they are held back.

SIGHUP starts the file as it is now. A trial shows whether that can serve (trial.py). Then the server closes all but its
sockets, and becomes the new program by execve(2), so that it stays the same process; and when the new program serves,
its monitor becomes the new one in the same way. If it dies before, the monitor starts the old one, as after any death.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Callable, NamedTuple, NoReturn, Optional

from ..errors import INTERNAL, OK, IpclockerError
from ..net.loop import Loop
from ..net.socket_activation import take_inherited
from ..net.tcp_listener import raise_descriptor_limit
from ..process.wait import how_it_ended
from ..version import VERSION
from .detach import detach
from .inheritance import FOREGROUND, MONITOR, PROBE, SERVER, TRIAL, Inheritance, Takeover, take_over
from .log import one_line, set_up, with_priority
from .loop_server import LoopServer, ServerFactory
from .monitor import (
    SIGNALS,
    TAKEN_OVER,
    MonitorOptions,
    Renewal,
    Serve,
    ServerMonitor,
    StartupStatus,
    fork_with_signals_blocked,
    parse_status,
    report_status,
    send_status,
)
from .pid_file import PidFile
from .reexec import Program, this_program
from .sd_notify import SystemdNotifier, private_variables, take_notifier
from .trial import Done, Trial, Upgrade, prove

_PATIENCE = 3.0  # seconds until who starts a server in the background is told that it takes long

log = logging.getLogger(__name__)


class DaemonOptions(NamedTuple):
    """The options that every server has: to run in the foreground or not, its pid file and its log."""

    foreground: bool = False
    pid_file: Optional[str] = None
    log_file: Optional[str] = None
    debug: bool = False


def run(
    start: ServerFactory,
    name: str,
    options: DaemonOptions,
    monitoring: MonitorOptions | None = None,
    kind: socket.SocketKind | None = None,
) -> int:
    """Run the server that `start` makes, until it ends or, in the background, until it is serving.

    Returns an exit code; an error has been printed by then, as one line on stderr. `start` may raise
    IpclockerError. It is called again for each start; in the background that is in another process and
    in the folder "/", so that paths have to be made absolute before. Descriptors 0, 1 and 2 have to be open, or a log
    or a socket that gets their number is lost. In the foreground, any other exception of the service is passed on.
    With `monitoring` there is a monitor in the foreground, too. A server on sockets says of which `kind` they are; it
    gets those that this process was started with. The service manager that has started this process is notified
    (sd_notify.py).
    """
    program = this_program(private_variables(), leaves_folder=not options.foreground)
    notifier = take_notifier()
    takeover = take_over()
    try:
        set_up(name, foreground=options.foreground, log_file=options.log_file, debug=options.debug)
        if takeover is not None:
            inheritance = takeover.inheritance
        else:
            inheritance = Inheritance(tuple(take_inherited(kind)) if kind is not None else ())
        if takeover is not None and takeover.role in (PROBE, TRIAL):
            prove(start if takeover.role == TRIAL else None, inheritance, kind or socket.SOCK_STREAM)
            return OK
        daemon = _Daemon(
            start,
            name,
            PidFile(options.pid_file),
            options.log_file,
            monitoring or MonitorOptions(renews=True),
            notifier,
            program,
            inheritance,
        )
        if takeover is not None:
            return daemon.take_over(takeover)
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


class _Daemon(NamedTuple):
    """A server, and what its processes share."""

    start: ServerFactory
    name: str
    pid_file: PidFile
    log_file: Optional[str]
    monitoring: MonitorOptions
    notifier: SystemdNotifier
    program: Program
    inheritance: Inheritance  # of the first server here, and of those that are started after a death

    def take_over(self, takeover: Takeover) -> int:
        """Go on in the place of the version that has run in this process; the exit code."""
        if takeover.pid_file is not None:
            self.pid_file.adopt(takeover.pid_file)
        if takeover.role == FOREGROUND:
            self.run_in_foreground()
            return OK
        os.chdir("/")
        status = None if takeover.status is None else socket.socket(fileno=takeover.status)
        if takeover.role == MONITOR:
            return self._take_over_monitor(None if status is None else (takeover.server, status))
        assert status is not None
        return self._serve_in_own_process(status, taken_over=True)

    def run_in_foreground(self) -> None:
        """Serve in this process."""
        try:
            self._serve(lambda: None, Takeover(FOREGROUND, pid_file=self.pid_file.descriptor))
        except IpclockerError as error:
            if self.log_file is not None:  # else the line on stderr is enough
                log.error("%s", error)
            raise
        finally:
            self.pid_file.remove()

    def monitor_in_foreground(self) -> int:
        """Be the monitor of a server; its exit code. Raises IpclockerError if it was never ready."""

        def serve(status: socket.socket) -> int:
            self.pid_file.close_in_parent()
            # What it logs before it is ready is the error that is to be printed.
            return self._serve_in_own_process(status, log_failure=self.log_file is not None)

        monitor = ServerMonitor(serve, self.monitoring._replace(restart=False))
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
        self._tell_if_it_takes_long(monitor)
        status = _receive_status(monitor)
        if status is None:
            how = _how_child_ended(pid)
            raise IpclockerError(f"the monitor process died before the server was ready ({how})")
        if status.code != OK:
            raise IpclockerError(status.text, status.code)
        return pid

    def _tell_if_it_takes_long(self, monitor: socket.socket) -> None:
        """Say so on stderr if no status comes: a wrong address of what it waits for looks like a hang."""
        poller = select.poll()
        poller.register(monitor, select.POLLIN)
        if not poller.poll(_PATIENCE * 1000):
            where = "the system log" if self.log_file is None else f"the log {self.log_file}"
            line = f"{self.name}: it is not ready yet, and goes on trying; {where} says what it waits for"
            print(one_line(line), file=sys.stderr, flush=True)

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
        def serve(status: socket.socket) -> int:
            launcher.close()
            self.pid_file.close_in_parent()
            return self._serve_in_own_process(status)

        def ready() -> None:
            with launcher:
                launcher.sendall(f"{OK} ".encode())

        detach()
        try:
            self.pid_file.write()
            return self._new_monitor(serve, ready, launcher).run()
        except (IpclockerError, OSError) as error:
            return StartupStatus(getattr(error, "exit_code", INTERNAL), str(error))

    def _take_over_monitor(self, server: tuple[int, socket.socket] | None) -> int:
        """Be the monitor of a server that there is already, or start one; the exit code."""

        def serve(status: socket.socket) -> int:
            self.pid_file.close_in_parent()
            return self._serve_in_own_process(status)

        try:
            return self._new_monitor(serve).run(server, takes_over=True).code
        finally:
            self.pid_file.remove()

    def _new_monitor(
        self, serve: Serve, ready: Callable[[], None] = lambda: None, launcher: socket.socket | None = None
    ) -> ServerMonitor:
        def renew(server: int, status: socket.socket | None) -> None:
            number = None if status is None else status.fileno()
            self._execute(Takeover(MONITOR, self.inheritance, self.pid_file.descriptor, number, server))

        def attempt(loop: Loop, done: Done) -> Trial:
            return Trial(loop, self.program, Takeover(PROBE), done)

        renewal = Renewal(attempt, renew) if self.monitoring.renews else None
        return ServerMonitor(serve, self.monitoring, ready, renewal, launcher)

    def _execute(self, takeover: Takeover) -> None:
        """Become the new version; return only if that can't be."""
        try:
            self.program.execute(takeover)
        except OSError as error:
            log.error("%s can't be started: %s; %s goes on", self.program.file, error, self.program.describe())

    def _serve_in_own_process(self, monitor: socket.socket, log_failure: bool = True, taken_over: bool = False) -> int:
        was_ready = False

        def report_ready() -> None:
            nonlocal was_ready
            if not was_ready:
                was_ready = True
                report_status(monitor, StartupStatus(OK, TAKEN_OVER if taken_over else ""))

        try:
            self._serve(report_ready, Takeover(SERVER, status=monitor.fileno()))
        except IpclockerError as error:
            if log_failure or was_ready:
                log.error("%s", error)
            report_status(monitor, StartupStatus(error.exit_code, str(error)))
            return error.exit_code
        except Exception as error:
            log.exception("the server ends by an error of its own")
            report_status(monitor, StartupStatus(INTERNAL, f"an error of its own: {error!r}"))
            return INTERNAL
        return OK

    def _serve(self, report_ready: Callable[[], None], takeover: Takeover) -> None:
        """Serve until the service is to end; for each restart, become the new version in the role of `takeover`."""
        with _signals_between_services(), contextlib.suppress(_Stopped):
            inheritance = self.inheritance
            while (handed := self._serve_once(report_ready, inheritance)) is not None:
                inheritance = handed
                self._execute(takeover._replace(inheritance=inheritance))
        log.info("%s ends", self.name)

    def _serve_once(self, report_ready: Callable[[], None], inheritance: Inheritance) -> Inheritance | None:
        """Serve until told to end or to restart; return what the next server is to have, None if there is none."""
        service: LoopServer | None = None
        upgrade: Upgrade | None = None
        restarts = False
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*SIGNALS} - {signal.SIGHUP})
            raise_descriptor_limit()
            service = self.start(inheritance.copy())
            upgrade = Upgrade(service, self.program, self.name)
            service.on_hang_up = upgrade.begin
            service.handle_signals()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            service.on_alive = self.notifier.alive
            service.wait_until_ready(self.notifier.waiting)
            service.on_status = self.notifier.status
            log.info("%s %s, %s; %s", self.name, VERSION, service.describe(), self.program.describe())
            report_ready()
            self.notifier.ready(service.describe())
            self.notifier.keep_alive(service.loop)
            try:
                restarts = service.run()
            finally:
                (self.notifier.reloading if restarts else self.notifier.stopping)()
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            handed = _end_service(service, upgrade, inheritance, restarts)
        return handed


def _end_service(
    service: LoopServer | None, upgrade: Upgrade | None, inheritance: Inheritance, restarts: bool
) -> Inheritance | None:
    """Close a service, which there may be none of, and return what the next one is to have, None if there is none."""
    with contextlib.ExitStack() as last:
        if upgrade is not None:
            upgrade.close()
            last.callback(upgrade.remove_copy)
        if service is None:
            inheritance.drop()
        elif restarts:
            return service.hand_over()
        else:
            service.close()
    return None


def _receive_status(monitor: socket.socket) -> StartupStatus | None:
    with monitor, monitor.makefile("rb") as received:
        return parse_status(received.read())


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
