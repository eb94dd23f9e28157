"""The guardian: a process that forks a server process and forks another one when that dies.

It does nothing else, so that little in it can fail: it waits for signals, for the server's word about its
start, and for the pauses of the restart policy.

- SIGTERM, SIGINT: the server is told to end, and killed if it does not within END_WITHIN. Then the guardian
  ends.
- SIGHUP: the server starts itself anew. If there is none, because it died, the next one is started at once.
- A server that ends with status 0 was told to by somebody else: the guardian ends too. So it does after GAVE_UP,
  which says that there is no sense in another.
- A server that dies before it was ready for the first time is a failed start: the guardian ends and reports
  the reason.

A guardian that is killed with SIGKILL takes nobody with it: its server goes on serving, with nobody to
restart it. The locks in its memory are worth more than tidiness.

A server that has processes of its own is cared for further (Care): its guardian gets all that is orphaned below
it (libc.adopt_orphans), and when the server has ended, however that was, it ends what is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from functools import partial
from typing import Callable, NamedTuple, NoReturn, Optional

from ..errors import GAVE_UP, INTERNAL, OK
from ..net.loop import READ, Loop, Timer
from ..process.restart_policy import RestartPolicy

END_WITHIN = 10.0  # seconds from the signal to end until a server is killed
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

log = logging.getLogger(__name__)


class StartupStatus(NamedTuple):
    """What a process says, once, about its start: OK, or an exit code and the reason."""

    code: int
    text: str = ""


Say = Callable[[StartupStatus], None]  # later words and words to nobody are dropped


class MonitorOptions(NamedTuple):
    """What a server with processes of its own needs of its guardian.

    signals: those that are passed on to it, besides the usual ones
    patient: whether it may take its own time to end, and is not killed after END_WITHIN
    sweep: called when it has ended, to end what it has left
    restart: whether another is started when it dies
    """

    signals: tuple[int, ...] = ()
    patient: bool = False
    sweep: Optional[Callable[[], object]] = None
    restart: bool = True


class ServerMonitor:
    """`serve` is what the server process does: it says its word and returns its exit status.

    `ready` is called when the first server said OK; if it raises OSError, whoever wanted a server is gone,
    and the guardian ends.
    """

    def __init__(
        self, serve: Callable[[Say], int], ready: Callable[[], None], care: MonitorOptions | None = None
    ) -> None:
        self._serve = serve
        self._ready = ready
        self._care = care or MonitorOptions()
        self._was_ready = False
        self._loop = Loop()
        self._policy = RestartPolicy(_chance)
        self._server = 0  # its pid; 0 while there is none
        self._hearing: socket.socket | None = None
        self._heard = b""
        self._restart: Timer | None = None
        self._stopping = False
        self._end = StartupStatus(OK)

    def run(self) -> StartupStatus:
        """Guard until the end. To be called with SIGNALS blocked; raises OSError if the first fork fails."""
        loop = self._loop
        loop.on_signal(signal.SIGTERM, self._stop)
        loop.on_signal(signal.SIGINT, self._stop)
        loop.on_signal(signal.SIGHUP, self._start_anew)
        loop.on_signal(signal.SIGCHLD, self._reap)
        for number in self._care.signals:
            loop.on_signal(number, partial(self._pass_on, number))
        if self._care.sweep is not None:
            from ..process import libc  # only here: others do without what that imports

            libc.adopt_orphans()
        self._fork()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        loop.run()
        loop.close()
        return self._end

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
        self._server, self._hearing, self._heard = pid, ours, b""
        self._loop.watch(ours, READ, self._listen)

    def _become_server(self, monitor: socket.socket) -> NoReturn:
        """In the new process. The signals stay blocked until there are handlers for them."""
        status = INTERNAL
        try:
            # The loop's descriptors are left open: they are the guardian's, to close them well would be to
            # read what is for it. Only its way to be woken by signals must not be ours.
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for further in self._care.signals:
                signal.signal(further, signal.SIG_IGN)  # until it has handlers of its own
            status = self._serve(lambda word: say(monitor, word))
        except BaseException:
            log.exception("the server ends by an error of its own")
        finally:
            os._exit(status)

    def _listen(self, events: int = READ) -> None:
        """Hear what the server has said so far about its start."""
        assert self._hearing is not None
        try:
            while chunk := self._hearing.recv(4096):
                self._heard += chunk
        except BlockingIOError:
            return
        self._loop.unwatch(self._hearing)
        self._hearing.close()
        self._hearing = None
        self._pass_on_readiness()

    def _pass_on_readiness(self) -> None:
        word = parse_word(self._heard)
        if word is None or word.code != OK or self._was_ready:
            return
        self._was_ready = True
        try:
            self._ready()
        except OSError:
            log.warning("whoever started the server is gone before it was ready; it is ended")
            self._stop()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._server:  # others are orphans: of a server that has children, or if this is process 1
                self._server_ended(pid, status)

    def _server_ended(self, pid: int, status: int) -> None:
        self._server = 0
        if self._hearing is not None:
            self._listen()
        if self._care.sweep is not None:
            self._care.sweep()
        how = how_it_ended(status)
        if self._stopping or status == 0:
            self._finish(StartupStatus(OK) if self._was_ready else StartupStatus(INTERNAL, "ended before it was ready"))
        elif not self._was_ready:
            word = parse_word(self._heard)
            self._finish(word or StartupStatus(INTERNAL, f"the server process died before it was ready ({how})"))
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == GAVE_UP:
            self._finish(StartupStatus(GAVE_UP))
        elif not self._care.restart:
            log.error("the server process %d died (%s)", pid, how)
            self._finish(StartupStatus(os.WEXITSTATUS(status) if os.WIFEXITED(status) else INTERNAL))
        else:
            self._restart_after_a_pause(f"the server process {pid} died ({how})")

    def _restart_after_a_pause(self, why: str) -> None:
        pause = self._policy.died(self._loop.now)
        log.error("%s; another is started in %.1f s", why, pause)
        self._restart = self._loop.call_at(self._loop.now + pause, self._fork_again)

    def _fork_again(self) -> None:
        self._restart = None
        try:
            self._fork()
        except OSError as error:
            self._restart_after_a_pause(f"no server process can be started ({error})")

    def _start_anew(self) -> None:
        if self._stopping:
            return
        if self._server != 0:
            os.kill(self._server, signal.SIGHUP)
        elif self._restart is not None:
            self._restart.cancel()
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
            if not self._care.patient:
                self._loop.call_at(self._loop.now + END_WITHIN, self._kill)

    def _kill(self) -> None:
        if self._server != 0:
            log.error("the server process %d did not end within %g s and is killed", self._server, END_WITHIN)
            os.kill(self._server, signal.SIGKILL)

    def _finish(self, word: StartupStatus) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        self._end = word
        self._loop.stop()


def fork_with_signals_blocked() -> int:
    """Fork so that a signal to the child waits until the child, having handlers for it, unblocks SIGNALS."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def say(listener: socket.socket, word: StartupStatus) -> None:
    """Say the one word and hang up."""
    with contextlib.suppress(OSError):
        listener.sendall(f"{word.code} {word.text}".encode("utf-8", "backslashreplace"))
    listener.close()


def parse_word(heard: bytes) -> StartupStatus | None:
    """What was said; None if nothing was, or only a part."""
    code, space, text = heard.decode("utf-8", "replace").partition(" ")
    return StartupStatus(int(code), text) if space and code.isdecimal() else None


def how_it_ended(status: int) -> str:
    """A status of waitpid in words, for a log."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _chance() -> float:
    return int.from_bytes(os.urandom(2), "big") / 65536
