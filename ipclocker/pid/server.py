"""The pid server: it receives datagrams with questions, and answers each with one datagram.

It keeps nothing of its clients, so only what it keeps of processes needs a bound (pidfd_cache.py). A datagram that it
does not understand is not answered; and no answer is longer than its question and the host's name together, so that
nobody can use the server to flood a third host.
"""

from __future__ import annotations

import logging
import os
import socket
from functools import partial
from time import monotonic
from typing import NamedTuple

from ..daemon.loop_server import LoopServer
from ..net.address import Address, own_host_name
from ..net.loop import READ, Loop
from ..net.udp_batch import DatagramBatcher
from ..net.udp_socket import UnixDatagram, adopt_datagrams, udp_everywhere, udp_sockets
from ..process.identity import own_boot, own_pidns, proc_status
from .endpoint import pid_endpoint
from .pidfd_cache import PidfdCache
from .protocol import MAX_DATAGRAM, PidAnswer, PidQuestion, is_wanted, read_question, write_answer

_LONGEST_TURN = 0.1  # seconds until the loop looks at signals and other sockets, so that SIGTERM is handled at once
_MOST_CACHED = 20_000  # questions whose answers are kept: some MB at most

log = logging.getLogger(__name__)


class _CachedAnswers(NamedTuple):
    """A question without identity that was read before: the process's number, and the answer in each case."""

    number: bytes
    if_exists: bytes
    if_gone: bytes
    if_unknown: bytes


class AnswerServer:
    """Turns datagrams with questions into datagrams with answers, without a socket."""

    def __init__(self, processes: PidfdCache) -> None:
        self._processes = processes
        self._own_name = os.fsencode(own_host_name())
        self._boot = own_boot()
        self._pidns = own_pidns()
        self._cache: dict[bytes, _CachedAnswers] = {}  # by datagram: a watcher sends the same bytes each time

    def answer(self, datagrams: list[bytes]) -> list[bytes]:
        """Answer a batch of datagrams that have come just now; b"" stands for no answer."""
        processes, cache = self._processes, self._cache
        processes.drop_ended()
        alive, look_up = processes.alive, processes.look_up
        answers = []
        for datagram in datagrams:
            cached = cache.get(datagram)
            if cached is None:
                answers.append(self._answer_new(datagram))
                continue
            number, if_exists, if_gone, if_unknown = cached
            if number in alive:
                answers.append(if_exists)
            else:
                exists = look_up(number)
                answers.append(if_unknown if exists is None else if_exists if exists else if_gone)
        return answers

    def _answer_new(self, datagram: bytes) -> bytes:
        question = read_question(datagram)
        if question is None:
            return b""
        if question.start is None and question.pidns is None and not question.boot:
            self._store(datagram, question)
        return self._answer(question, self._exists(question))

    def _answer(self, question: PidQuestion, exists: bool | None) -> bytes:
        if not is_wanted(question.flags, exists):
            return b""
        return write_answer(PidAnswer(question.pid, exists, question.host or self._own_name))

    def _store(self, datagram: bytes, question: PidQuestion) -> None:
        if len(self._cache) >= _MOST_CACHED:
            self._cache.clear()
        answers = (self._answer(question, exists) for exists in (True, False, None))
        self._cache[datagram] = _CachedAnswers(b"%d" % question.pid, *answers)

    def _exists(self, question: PidQuestion) -> bool | None:
        pid, _, _, start, boot, pidns = question
        if boot and boot != self._boot:
            return False if self._boot else None
        if pidns is not None and pidns != self._pidns:
            return None
        number = b"%d" % pid
        if start is not None:
            return self._processes.is_same(number, start)
        return number in self._processes.alive or self._processes.look_up(number)


class PidServer(LoopServer):
    """A pid server (IPC::PidStat::PidServer): `PidServer(port=1234).start_server()`.

    For `port` see `pid_endpoint`. `host` is one host or several whose addresses it listens on, all of this host if
    it is None. If there are `sockets`, which are bound already, it uses them instead, and closes them in the end.
    Raises UsageError or ServerUnavailable when it can't listen there.
    """

    def __init__(
        self,
        port: str | int | None = None,
        host: str | list[str] | None = None,
        sockets: list[socket.socket] | None = None,
    ) -> None:
        self._unix: UnixDatagram | None = None
        where = pid_endpoint(port)
        if sockets:
            self._sockets = adopt_datagrams(sockets)
        elif where.path is not None:
            self._unix = UnixDatagram(where.path)
            self._sockets = [self._unix.socket]
        elif host is None:
            self._sockets = udp_everywhere(where.port)
        else:
            self._sockets = udp_sockets([host] if isinstance(host, str) else host, where.port)
        super().__init__(Loop())
        self._processes = PidfdCache()
        self._answers = AnswerServer(self._processes)
        for sock in self._sockets:
            batches = DatagramBatcher(sock, MAX_DATAGRAM + 1)
            self._loop.watch(sock, READ, partial(self._serve, batches))

    @property
    def addresses(self) -> list[str]:
        """The addresses on which it listens, as `host:port` or as the name of the UNIX socket."""
        return [str(Address(s.family, s.getsockname())) for s in self._sockets]

    def describe(self) -> str:
        """Say in one line for the log where it listens, and what it can't see."""
        return f"listening on {', '.join(self.addresses)}{_what_is_hidden()}"

    def close(self) -> None:
        """Close the sockets, and remove the name of the UNIX socket."""
        for sock in self._sockets:
            sock.close()
        if self._unix is not None:
            self._unix.close()
        self._processes.close()
        super().close()

    def _serve(self, batches: DatagramBatcher, events: int) -> None:
        """Answer the datagrams that have come, and those that come meanwhile."""
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
    """Say what a server that was started without root can't see."""
    if os.geteuid() == 0:
        return ""
    if proc_status(1) is None:
        return (
            "; without root, /proc hides the processes of other users here: when those were started is not known, "
            "and questions that depend on it are answered as unknown"
        )
    return "; without root, but /proc hides nothing here"
