"""The monitor: a process that forks a server process, and forks another one when that dies.

It does nothing else, so that little in it can fail: it waits for signals, for the server's status after its
start, and for the pauses of the restart policy.

- SIGTERM, SIGINT: the server is told to end, and killed if it does not within END_WITHIN. Then the monitor ends.
- SIGHUP: the server restarts itself, from its file as that is now; when it serves again, and a trial of the file goes
  well, the monitor does the same. If there is no server, because it died, the next one is started at once,
  from the file if a trial of that goes well.
- A server that ends with status 0 was told to end by somebody else: the monitor ends too. It also ends after GAVE_UP,
  which says that another server would end in the same way.
- A server that dies before it was ready for the first time is a failed start: the monitor ends and reports the reason.
- When the process that wanted the server is gone before that, so are the server and the monitor: nobody would know of
  one that waits, for an etcd say.

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
from math import inf
from typing import Callable, NamedTuple, NoReturn, Optional

from ..errors import GAVE_UP, INTERNAL, OK, OUTPUT
from ..net.loop import READ, Loop, Timer
from ..process.restart_policy import RestartPolicy
from ..process.wait import ended_children, how_it_ended
from .trial import Done, Trial

_LONGEST_STATUS = 65_536  # bytes
END_WITHIN = 10.0  # seconds from the signal to end until a server is killed: time to flush and to answer its clients
_LONGEST_AFTER_REFUSAL = 3.0  # seconds until a server that can't use its state is started again: a fork, and a look
TAKEN_OVER = "taken over"  # the text of OK from a server that has become another version of itself
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

log = logging.getLogger(__name__)


class StartupStatus(NamedTuple):
    """The result of a start, which a process reports once: OK, or an exit code and the reason."""

    code: int
    text: str = ""


class MonitorOptions(NamedTuple):
    """Options for a server, above all for one with processes of its own.

    signals: the signals that are passed on to it, besides the usual ones
    patient: it may take its own time to end, and is not killed after END_WITHIN
    sweep: called when it has ended, to end the processes that it has left
    restart: another server is started when it dies
    renews: SIGHUP starts it, and the monitor, from the file as it is now
    """

    signals: tuple[int, ...] = ()
    patient: bool = False
    sweep: Optional[Callable[[], object]] = None
    restart: bool = True
    renews: bool = False


Serve = Callable[[socket.socket], int]  # be the server: report a status to the socket, and return the exit code


class Renewal(NamedTuple):
    """How a monitor becomes the version that its file has now.

    attempt: start a trial, which calls back with None or the reason why it failed. It may raise OSError, ImportError
    become: become that version, as the monitor of the server with this pid and socket, or of none (0, None); return if
        that can't be. Called with SIGNALS blocked
    """

    attempt: Callable[[Loop, Done], Trial]
    become: Callable[[int, Optional[socket.socket]], None]


class ServerMonitor:
    """The monitor of one server.

    `serve` runs in the server process. `ready` is called when the first server has reported OK. The process that wanted
    a server is gone, and the monitor ends, if that raises OSError, or `launcher` can be read from before.
    """

    def __init__(
        self,
        serve: Serve,
        options: MonitorOptions,
        ready: Callable[[], None] = lambda: None,
        renewal: Renewal | None = None,
        launcher: socket.socket | None = None,
    ) -> None:
        self._serve = serve
        self._ready = ready
        self._launcher = launcher
        self._renewal = renewal
        self._trial: Trial | None = None
        self._options = options
        self.was_ready = False  # the first server has reported OK
        self._loop = Loop()
        self._policy = RestartPolicy(_random)
        self._server = 0  # its pid; 0 while there is none
        self._status_socket: socket.socket | None = None
        self._reported: StartupStatus | None = None  # by this server, last
        self._outdated = False  # there is a newer version, which the server is already if there is one
        self._restart_timer: Timer | None = None
        self._stopping = False
        self._result = StartupStatus(OK)

    def run(self, server: tuple[int, socket.socket] | None = None, takes_over: bool = False) -> StartupStatus:
        """Monitor until the end, and return the status to report; call it with SIGNALS blocked.

        A server is started, unless this process has one already: its pid and socket. It is not the first one if the
        process `takes_over` from a monitor. Raises OSError if the first fork fails.
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
        self.was_ready = takes_over
        if server is not None:
            self._take(*server)
            self._reap()  # its end may have been told to the program that was here before
        elif takes_over:
            self._fork_again()
        else:
            self._fork()
        if self._launcher is not None:
            loop.watch(self._launcher, READ, lambda events: self._launcher_gone())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        loop.run()
        while self._outdated:
            self._become_newer()
            loop.run()
        loop.close()
        return self._result

    def _become_newer(self) -> None:
        """Do what has been asked for until now, and then become the new version of the monitor."""
        self._outdated = False
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._loop.turn(0.0)
        if self._renewal is not None and (self._server != 0 or self._restart_timer is not None) and not self._stopping:
            self._renewal.become(self._server, self._status_socket)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _fork(self) -> None:
        ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)  # one for each status
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
        self._take(pid, ours)

    def _take(self, pid: int, status: socket.socket) -> None:
        """Have this server from now on."""
        status.setblocking(False)
        self._server, self._status_socket, self._reported = pid, status, None
        self._loop.watch(status, READ, self._read_status)

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
            status = self._serve(monitor)
        except BaseException:
            log.exception("the server ends by an error of its own")
        finally:
            os._exit(status)

    def _read_status(self, events: int = READ) -> None:
        """Read what the server has reported about its start."""
        assert self._status_socket is not None
        with contextlib.suppress(OSError):
            while received := self._status_socket.recv(_LONGEST_STATUS):
                self._reported = parse_status(received)
                if self._reported == StartupStatus(OK, TAKEN_OVER):
                    self._follow_server()
                elif self._reported == StartupStatus(OK) and not self.was_ready:
                    self._report_ready()

    def _follow_server(self) -> None:
        """Become the version that the server is, unless the file was damaged since, which would end it."""
        if self._trial is not None:
            self._trial.close()
        if self._renewal is not None:
            try:
                self._trial = self._renewal.attempt(self._loop, self._followed)
            except (OSError, ImportError) as error:
                self._followed(str(error))

    def _followed(self, problem: str | None) -> None:
        self._trial = None
        if problem is None:
            self._outdated = True
            self._loop.stop()
        else:
            log.error("the file can't be started any more, and the monitor stays the version before: %s", problem)

    def _report_ready(self) -> None:
        self.was_ready = True
        self._unwatch_launcher()
        try:
            self._ready()
        except OSError:
            self._launcher_gone()

    def _launcher_gone(self) -> None:
        self._unwatch_launcher()
        log.warning("the process that started the server is gone before it was ready; the server is ended")
        self._stop()

    def _unwatch_launcher(self) -> None:
        if self._launcher is not None:
            self._loop.unwatch(self._launcher)
            self._launcher = None

    def _reap(self) -> None:
        for pid, status in ended_children():
            if pid == self._server:  # others are orphans: of a server that has children, or if this is process 1
                self._server_ended(pid, status)

    def _server_ended(self, pid: int, status: int) -> None:
        self._server = 0
        if self._status_socket is not None:
            self._read_status()
            self._loop.unwatch(self._status_socket)
            self._status_socket.close()
            self._status_socket = None
        if self._options.sweep is not None:
            self._options.sweep()
        how = how_it_ended(status)
        if self._stopping or status == 0:
            self._finish(StartupStatus(OK) if self.was_ready else StartupStatus(INTERNAL, "ended before it was ready"))
        elif not self.was_ready:
            self._finish(
                self._reported or StartupStatus(INTERNAL, f"the server process died before it was ready ({how})")
            )
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == GAVE_UP:
            self._finish(StartupStatus(GAVE_UP))
        elif not self._options.restart:
            log.error("the server process %d died (%s)", pid, how)
            self._finish(StartupStatus(os.WEXITSTATUS(status) if os.WIFEXITED(status) else INTERNAL))
        else:
            # A state that can't be used is put right by a person, who then waits for the server.
            is_refused = os.WIFEXITED(status) and os.WEXITSTATUS(status) == OUTPUT
            longest = _LONGEST_AFTER_REFUSAL if is_refused else inf
            self._restart_after_a_pause(f"the server process {pid} died ({how})", longest)

    def _restart_after_a_pause(self, why: str, longest: float = inf) -> None:
        pause = min(self._policy.died(self._loop.now), longest)
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
        elif self._restart_timer is None or self._trial is not None:
            pass  # it is being done
        elif self._renewal is None:
            self._fork_now()
        else:  # the pause goes on meanwhile
            try:
                self._trial = self._renewal.attempt(self._loop, self._tried)
            except (OSError, ImportError) as error:
                self._tried(str(error))

    def _tried(self, problem: str | None) -> None:
        self._trial = None
        if self._server != 0:
            os.kill(self._server, signal.SIGHUP)
        elif problem is None:
            self._outdated = True
            self._loop.stop()
        else:
            log.error("the file as it is now can't be started, and the version before is: %s", problem)
            self._fork_now()

    def _fork_now(self) -> None:
        if self._restart_timer is not None:
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
        if self._trial is not None:
            self._trial.close()
            self._trial = None
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
        listener.sendall(_encoded(status))
    listener.close()


def report_status(monitor: socket.socket, status: StartupStatus) -> None:
    """Send the status of a server; nothing happens if nobody reads it, and a stopped monitor is not waited for."""
    with contextlib.suppress(OSError):
        monitor.send(_encoded(status), socket.MSG_DONTWAIT)


def _encoded(status: StartupStatus) -> bytes:
    return f"{status.code} {status.text}".encode("utf-8", "backslashreplace")[:_LONGEST_STATUS]


def parse_status(received: bytes) -> StartupStatus | None:
    """Read a status that was sent; None if it is missing or only a part of it has come."""
    code, space, text = received.decode("utf-8", "replace").partition(" ")
    return StartupStatus(int(code), text) if space and code.isdecimal() else None


def _random() -> float:
    return int.from_bytes(os.urandom(2), "big") / 65536
