"""The monitor: a process that forks a server process, and forks another one when that dies.

It does nothing else, so that little in it can fail: it waits for signals, for the server's status after its
start, and for the pauses of the restart policy.

- SIGTERM, SIGINT: the server is told to end, and killed if it does not within END_WITHIN. Then the monitor ends.
- SIGHUP: the server restarts itself. If there is none, because it died, the next one is started at once.
- A server that ends with status 0 was told to end by somebody else: the monitor ends too. It also ends after GAVE_UP,
  which says that another server would end in the same way.
- A server that dies before it was ready for the first time is a failed start: the monitor ends and reports the reason.

A monitor that is killed with SIGKILL does not end its server, which goes on serving, but is not restarted any more.
The locks in its memory are worth more than tidiness.

For a server that has processes of its own (MonitorOptions.sweep) the monitor also gets all orphans below it
(libc.adopt_orphans), and when the server has ended, for whatever reason, it ends the processes that are left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Collection
from functools import partial
from typing import Callable, NamedTuple, NoReturn, Optional

from ..errors import GAVE_UP, INTERNAL, OK
from ..net.loop import READ, Loop, Timer
from ..process.restart_policy import RestartPolicy
from ..process.wait import ended_children

END_WITHIN = 10.0  # seconds from the signal to end until a server is killed: time to flush and to answer its clients
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

log = logging.getLogger(__name__)


class StartupStatus(NamedTuple):
    """The result of a start, which a process reports once: OK, or an exit code and the reason."""

    code: int
    text: str = ""


ReportStatus = Callable[[StartupStatus], None]  # only the first status counts; one that nobody reads is dropped


class MonitorOptions(NamedTuple):
    """Options for a server with processes of its own.

    signals: the signals that are passed on to it, besides the usual ones
    patient: it may take its own time to end, and is not killed after END_WITHIN
    sweep: called when it has ended, to end the processes that it has left
    restart: another server is started when it dies
    """

    signals: tuple[int, ...] = ()
    patient: bool = False
    sweep: Optional[Callable[[], object]] = None
    restart: bool = True


class ServerMonitor:
    """The monitor of one server.

    `serve` runs in the server process: it reports a status and returns the exit code. `ready` is called when the first
    server has reported OK; if it raises OSError, the process that wanted a server is gone, and the monitor ends.
    """

    def __init__(
        self, serve: Callable[[ReportStatus], int], ready: Callable[[], None], options: MonitorOptions
    ) -> None:
        self._serve = serve
        self._ready = ready
        self._options = options
        self.was_ready = False  # the first server has reported OK
        self._loop = Loop()
        self._policy = RestartPolicy(_random)
        self._server = 0  # its pid; 0 while there is none
        self._status_socket: socket.socket | None = None
        self._received = b""
        self._restart_timer: Timer | None = None
        self._stopping = False
        self._result = StartupStatus(OK)

    def run(self) -> StartupStatus:
        """Monitor until the end, and return the status to report; call it with SIGNALS blocked.

        Raises OSError if the first fork fails.
        """
        loop = self._loop
        loop.on_signal(signal.SIGTERM, self._stop)
        loop.on_signal(signal.SIGINT, self._stop)
        loop.on_signal(signal.SIGHUP, self._restart_server)
        loop.on_signal(signal.SIGCHLD, self._reap)
        for number in self._options.signals:
            loop.on_signal(number, partial(self._pass_on, number))
        if self._options.sweep is not None:
            from ..process import libc  # only here: others do without what that imports

            libc.adopt_orphans()
        self._fork()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        loop.run()
        loop.close()
        return self._result

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        self._policy.started(self._loop.now)
        try:
            pid = fork_with_signals_blocked()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            self._become_server(theirs)
        theirs.close()
        ours.setblocking(False)
        self._server, self._status_socket, self._received = pid, ours, b""
        self._loop.watch(ours, READ, self._read_status)

    def _become_server(self, monitor: socket.socket) -> NoReturn:
        """Be the server, in the new process; the signals stay blocked until there are handlers for them."""
        status = INTERNAL
        try:
            # The loop's descriptors are left open: closing the loop would read what is for the monitor. Only the
            # descriptor that signals are written to must not be used here.
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for further in self._options.signals:
                signal.signal(further, signal.SIG_IGN)  # until it has handlers of its own
            status = self._serve(lambda status: send_status(monitor, status))
        except BaseException:
            log.exception("the server ends by an error of its own")
        finally:
            os._exit(status)

    def _read_status(self, events: int = READ) -> None:
        """Read what the server has reported so far about its start."""
        assert self._status_socket is not None
        try:
            while chunk := self._status_socket.recv(4096):
                self._received += chunk
        except BlockingIOError:
            return
        self._loop.unwatch(self._status_socket)
        self._status_socket.close()
        self._status_socket = None
        self._report_ready()

    def _report_ready(self) -> None:
        status = parse_status(self._received)
        if status is None or status.code != OK or self.was_ready:
            return
        self.was_ready = True
        try:
            self._ready()
        except OSError:
            log.warning("the process that started the server is gone before it was ready; the server is ended")
            self._stop()

    def _reap(self) -> None:
        for pid, status in ended_children():
            if pid == self._server:  # others are orphans: of a server that has children, or if this is process 1
                self._server_ended(pid, status)

    def _server_ended(self, pid: int, status: int) -> None:
        self._server = 0
        if self._status_socket is not None:
            self._read_status()
        if self._options.sweep is not None:
            self._options.sweep()
        how = how_it_ended(status)
        if self._stopping or status == 0:
            self._finish(StartupStatus(OK) if self.was_ready else StartupStatus(INTERNAL, "ended before it was ready"))
        elif not self.was_ready:
            reported = parse_status(self._received)
            self._finish(reported or StartupStatus(INTERNAL, f"the server process died before it was ready ({how})"))
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == GAVE_UP:
            self._finish(StartupStatus(GAVE_UP))
        elif not self._options.restart:
            log.error("the server process %d died (%s)", pid, how)
            self._finish(StartupStatus(os.WEXITSTATUS(status) if os.WIFEXITED(status) else INTERNAL))
        else:
            self._restart_after_a_pause(f"the server process {pid} died ({how})")

    def _restart_after_a_pause(self, why: str) -> None:
        pause = self._policy.died(self._loop.now)
        log.error("%s; another is started in %.1f s", why, pause)
        self._restart_timer = self._loop.call_at(self._loop.now + pause, self._fork_again)

    def _fork_again(self) -> None:
        self._restart_timer = None
        try:
            self._fork()
        except OSError as error:
            self._restart_after_a_pause(f"no server process can be started ({error})")

    def _restart_server(self) -> None:
        if self._stopping:
            return
        if self._server != 0:
            os.kill(self._server, signal.SIGHUP)
        elif self._restart_timer is not None:
            self._restart_timer.cancel()
            self._fork_again()

    def _pass_on(self, number: int) -> None:
        if self._server != 0:
            os.kill(self._server, number)

    def _stop(self) -> None:
        if self._server == 0:
            self._finish(StartupStatus(OK))
            return
        os.kill(self._server, signal.SIGTERM)
        if not self._stopping:
            self._stopping = True
            if not self._options.patient:
                self._loop.call_at(self._loop.now + END_WITHIN, self._kill)

    def _kill(self) -> None:
        if self._server != 0:
            log.error("the server process %d did not end within %g s and is killed", self._server, END_WITHIN)
            os.kill(self._server, signal.SIGKILL)

    def _finish(self, status: StartupStatus) -> None:
        if self._restart_timer is not None:
            self._restart_timer.cancel()
            self._restart_timer = None
        self._result = status
        self._loop.stop()


def fork_with_signals_blocked(numbers: Collection[int] = SIGNALS) -> int:
    """Fork so that one of these signals to the child waits until the child, having handlers for them, unblocks them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def send_status(listener: socket.socket, status: StartupStatus) -> None:
    """Send the status and close the socket; nothing happens if nobody reads it."""
    with contextlib.suppress(OSError):
        listener.sendall(f"{status.code} {status.text}".encode("utf-8", "backslashreplace"))
    listener.close()


def parse_status(received: bytes) -> StartupStatus | None:
    """Read a status that was sent; None if it is missing or only a part of it has come."""
    code, space, text = received.decode("utf-8", "replace").partition(" ")
    return StartupStatus(int(code), text) if space and code.isdecimal() else None


def how_it_ended(status: int) -> str:
    """Describe a status of waitpid in words, for a log."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _random() -> float:
    return int.from_bytes(os.urandom(2), "big") / 65536
