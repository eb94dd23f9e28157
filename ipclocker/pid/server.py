"""The pid server: it receives datagrams with questions, and answers each with one datagram.

It keeps nothing of its clients, so only what it keeps of processes needs a bound (pidfd_cache.py). A datagram that it
does not understand is not answered; and no answer is longer than its question and the host's name together, so that
nobody can use the server to flood a third host.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Optional, Union

from ..daemon.inheritance import Inheritance
from ..daemon.listening_server import ListeningServer
from ..net.address import own_host_name
from ..net.loop import READ, Loop
from ..net.text import encode_text
from ..net.udp_batch import DatagramBatcher
from ..net.udp_socket import UnixDatagram, adopt_datagrams, udp_everywhere, udp_sockets
from ..parameters import HOSTS, UNCHANGED, given, socket_list, text_list
from ..process.identity import ProcessIdentity, proc_status
from ..process.relation import GONE, HERE, ON_THIS_KERNEL, comparable_start, relation
from ..process.viewpoint import own_view
from .endpoint import pid_endpoint
from .namespaces import NamespaceSearch
from .pidfd_cache import PidfdCache
from .protocol import MAX_DATAGRAM, PidAnswer, PidQuestion, is_wanted, read_question, write_answer

_LONGEST_TURN = 0.1  # seconds until the loop looks at signals and other sockets, so that SIGTERM is handled at once
_MOST_CACHED = 20_000  # questions whose answers are kept: some MB at most

log = logging.getLogger(__name__)


class AnswerServer:
    """Turns datagrams with questions into datagrams with answers, without a socket."""

    def __init__(self, processes: PidfdCache) -> None:
        self._processes = processes
        self._own_name = encode_text(own_host_name())
        self._view = own_view()
        self._namespaces = NamespaceSearch(self._view)
        # By datagram, since a watcher sends the same bytes each time: the number of the process that a question
        # without identity is about, and the answer if it exists (True), does not (False), or that can't be known.
        self._cache: dict[bytes, tuple[bytes, dict[bool | None, bytes]]] = {}

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
            else:
                number, by_state = cached
                answers.append(by_state[number in alive or look_up(number)])
        return answers

    def _answer_new(self, datagram: bytes) -> bytes:
        question = read_question(datagram)
        if question is None:
            return b""
        if len(datagram.split(None, 4)) <= 4:
            self._store(datagram, question)
        return self._answer(question, self._exists(question))

    def _answer(self, question: PidQuestion, exists: bool | None) -> bytes:
        if not is_wanted(question.flags, exists):
            return b""
        return write_answer(PidAnswer(question.pid, exists, question.host or self._own_name))

    def _store(self, datagram: bytes, question: PidQuestion) -> None:
        if len(self._cache) >= _MOST_CACHED:
            self._cache.clear()
        by_state = {exists: self._answer(question, exists) for exists in (True, False, None)}
        self._cache[datagram] = b"%d" % question.pid, by_state

    def _exists(self, question: PidQuestion) -> bool | None:
        number = b"%d" % question.pid
        if not question.boot:
            # A number alone is of whichever host is asked. Who knows the host's name says it: behind a NAT gateway
            # that answers it is another one.
            is_other = question.name != "" and _first_label(question.name) != _first_label(self._view.host)
            if is_other or question.pidns not in (None, self._view.pidns):
                return None
            return self._look_up(number, question.start)
        process = ProcessIdentity(question.pid, *question[3:9])
        where = relation(process, self._view, question.silent)
        if where == HERE:
            return self._look_up(number, comparable_start(process, self._view))
        if where == ON_THIS_KERNEL:
            return self._namespaces.exists(process, question.silent or 0.0)
        return False if where == GONE else None

    def _look_up(self, number: bytes, start: int | None) -> bool | None:
        if start is not None:
            return self._processes.is_same(number, start)
        return number in self._processes.alive or self._processes.look_up(number)


class PidServer(ListeningServer):
    """A pid server (IPC::PidStat::PidServer): `PidServer(port=1234).start_server()`.

    For `port` see `pid_endpoint`. `host` is one host or several whose addresses it listens on, all of this host if
    it is None. If there are `sockets`, which are bound already, or it has some from an earlier server (`inherited`), it
    uses them instead, and closes them in the end. Raises UsageError or ServerUnavailable when it can't listen there.

        with PidServer(port=1234) as server:
            Thread(target=server.start_server).start()
            ...
    """

    def __init__(
        self,
        port: Union[str, int, None] = None,
        host: Union[str, Iterable[str], None] = None,
        sockets: Optional[Iterable[socket.socket]] = None,
        inherited: Optional[Inheritance] = None,
    ) -> None:
        self._made_with = given(locals())
        hosts = None if host is None else text_list("host", host, HOSTS)
        inherited = inherited or Inheritance(socket_list("sockets", sockets))
        where = pid_endpoint(port)
        self._open_sockets(
            inherited,
            where.path,
            UnixDatagram,
            adopt_datagrams,
            lambda: udp_everywhere(where.port) if hosts is None else udp_sockets(hosts, where.port),
        )
        self._processes = PidfdCache()
        self._answers = AnswerServer(self._processes)
        super().__init__(Loop())
        for sock in self._sockets:
            batches = DatagramBatcher(sock, MAX_DATAGRAM + 1)
            self._loop.watch(sock, READ, partial(self._serve, batches))

    def start_server(
        self,
        port: Union[str, int, None] = UNCHANGED,
        host: Union[str, Iterable[str], None] = UNCHANGED,
        sockets: Optional[Iterable[socket.socket]] = UNCHANGED,
    ) -> None:
        """Serve until SIGTERM or SIGINT (if called in the main thread), SIGHUP, `stop` or `close`; then it is closed.

        With parameters, which go before those that it was made with, it is first made again. Raises as the
        constructor does.
        """
        self._make_again(PidServer.__init__, given(locals()))
        super().start_server()

    def describe(self) -> str:
        """Say in one line for the log where it listens, and what it can't see."""
        return f"listening on {', '.join(self.addresses)}{_what_is_hidden()}"

    def _close(self) -> None:
        self._close_sockets()
        self._processes.close()
        super()._close()

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


def _first_label(host: str) -> str:
    return host.partition(".")[0].lower()


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
