"""The pid server: a datagram with a question comes, one with the answer goes.

It keeps nothing of those who ask, so there is nothing to bound but what it keeps of processes (processes.py). What
it does not understand it does not answer; and no answer is longer than its question and its own name together,
so that nobody can use it to flood a third.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from signal import SIGHUP, SIGINT, SIGTERM
from time import monotonic

from ..daemon.address import Address, own_host_name
from ..daemon.datagram import Batches, UnixDatagram, udp_everywhere, udp_sockets
from ..daemon.loop import READ, Loop
from .endpoint import pid_endpoint
from .identity import own_boot, own_pidns, proc_status
from .processes import Processes
from .protocol import MAX_DATAGRAM, Answer, Question, is_wanted, read_question, write_answer

_LONGEST_TURN = 0.1  # seconds until the loop looks at signals and other sockets

_ZERO = ord("0")

log = logging.getLogger(__name__)


class Answers:
    """Answers datagrams: no socket here."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._alive = processes.alive
        self._own_name = os.fsencode(own_host_name())
        self._boot = own_boot()
        self._pidns = own_pidns()

    def answer(self, datagrams: list[bytes]) -> list[bytes]:
        """The answers to a batch of datagrams that have come just now; empty where there is to be none."""
        processes = self._processes
        processes.settle()
        alive, look_up = processes.alive, processes.look_up
        answers = []
        for datagram in datagrams:
            # The short way, for what nearly all ask: no identity, and an answer whatever it is.
            try:
                verb, number, host, flags = datagram.split()
            except ValueError:
                answers.append(self._answer_any(datagram))
                continue
            if flags != b"7" or verb != b"PIDR" or len(datagram) > MAX_DATAGRAM:
                answers.append(self._answer_any(datagram))
            elif number in alive:
                answers.append(b"EXIS %b 1 %b" % (number, host))
            elif number.isdigit() and number[0] != _ZERO and look_up(number) is False:
                answers.append(b"EXIS %b 0 %b" % (number, host))
            else:
                answers.append(self._answer_any(datagram))
        return answers

    def _answer_any(self, datagram: bytes) -> bytes:
        question = read_question(datagram)
        if question is None:
            return b""
        exists = self._exists(question)
        if not is_wanted(question.flags, exists):
            return b""
        return write_answer(Answer(question.pid, exists, question.host or self._own_name))

    def _exists(self, question: Question) -> bool | None:
        pid, _, _, start, boot, pidns = question
        if boot and boot != self._boot:
            return False if self._boot else None
        if pidns is not None and pidns != self._pidns:
            return None
        number = b"%d" % pid
        if start is not None:
            return self._processes.is_same(number, start)
        return number in self._alive or self._processes.look_up(number)


class PidServer:
    """A pid server (IPC::PidStat::PidServer): `PidServer(port=1234).start_server()`.

    For `port` see `pid_endpoint`. `host` is one host or several whose addresses it listens on, all of this host if
    it is None. Raises UsageError or ServerUnavailable when it can't listen there.
    """

    def __init__(self, port: str | int | None = None, host: str | list[str] | None = None) -> None:
        self._loop = Loop()
        self._ending = False
        self._anew = False
        self._unix: UnixDatagram | None = None
        where = pid_endpoint(port)
        if where.path is not None:
            self._unix = UnixDatagram(where.path)
            self._sockets = [self._unix.socket]
        elif host is None:
            self._sockets = udp_everywhere(where.port)
        else:
            self._sockets = udp_sockets([host] if isinstance(host, str) else host, where.port)
        self._processes = Processes()
        self._answers = Answers(self._processes)
        for sock in self._sockets:
            self._watch(sock)

    @property
    def addresses(self) -> list[str]:
        """Where it is asked, as `host:port` or as the name of the UNIX socket."""
        return [str(Address(s.family, s.getsockname())) for s in self._sockets]

    def describe(self) -> str:
        """One line for the log."""
        return f"listening on {', '.join(self.addresses)}{_what_is_hidden()}"

    def start_server(self) -> None:
        """Serve until SIGTERM or SIGINT (if called in the main thread), SIGHUP or `stop`."""
        try:
            with contextlib.suppress(ValueError):  # another thread than the main one has no signals
                self.handle_signals()
            self.run()
        finally:
            self.close()

    def handle_signals(self) -> None:
        """From now on SIGTERM and SIGINT end the server, and SIGHUP asks for a new one. In the main thread only."""
        self._loop.on_signal(SIGTERM, self.stop)
        self._loop.on_signal(SIGINT, self.stop)
        self._loop.on_signal(SIGHUP, self._start_anew)

    def run(self) -> bool:
        """Serve; True if a new server is to be started (SIGHUP), False if it is to end."""
        self._loop.run()
        return self._anew

    def stop(self) -> None:
        """Return from `run` at the end of this turn; to end goes before to start anew."""
        self._ending = True
        self._anew = False
        self._loop.stop()

    def _start_anew(self) -> None:
        self._anew = not self._ending
        self._loop.stop()

    def close(self) -> None:
        """Give back the sockets and the name of the UNIX socket."""
        for sock in self._sockets:
            sock.close()
        if self._unix is not None:
            self._unix.close()
        self._processes.close()
        self._loop.close()

    def _watch(self, sock: socket.socket) -> None:
        batches = Batches(sock, MAX_DATAGRAM + 1)
        self._loop.watch(sock, READ, lambda events: self._serve(batches))

    def _serve(self, batches: Batches) -> None:
        """Answer what has come, and what comes while that is done."""
        # With one socket there is nothing else to wait for, so a short wait needs no turn of the loop.
        wait = len(self._sockets) == 1
        answer = self._answers.answer
        until = self._loop.now + _LONGEST_TURN
        while monotonic() < until:
            datagrams = batches.receive(wait)
            if not datagrams:
                return
            batches.answer(answer(datagrams))


def _what_is_hidden() -> str:
    """What a server that was started without root can't see."""
    if os.geteuid() == 0:
        return ""
    if proc_status(1) is None:
        return (
            "; without root, /proc hides the processes of other users here: when those were started is not known, "
            "and questions that depend on it are answered as unknown"
        )
    return "; without root, but /proc hides nothing here"
