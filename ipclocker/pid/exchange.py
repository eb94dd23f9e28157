"""Questions to pid servers and their answers, for all threads of a program over one socket.

One thread at a time, the reader, waits for the socket, with its own deadline. An answer goes to the thread that waits
for it, or into the queue of those that nobody waits for. All other threads sleep until an answer is handed over or the
reader leaves: then one of them becomes the reader.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Callable, Optional

from ..net.address import Address
from ..net.joint_descriptor import JointDescriptor
from ..net.ready import READ, new_poller, poll_until
from ..process.identity import ProcessIdentity
from .pending import PendingQueries
from .protocol import MAX_DATAGRAM

Stat = tuple[int, Optional[bool], str]  # pid; whether it exists, None if that can't be known; host, as it was asked
_LONGEST_SLEEP = 3600.0  # seconds; a lock takes no infinity and no huge number


class Question:
    """An open question. `has_asker`: a thread waits for the answer, which is put there; else it goes to the queue."""

    def __init__(self, host: str, has_asker: bool) -> None:
        self.host = host
        self.has_asker = has_asker
        self.answer: Stat | None = None
        self.secret = self.datagram = b""


class AnswerExchange:
    """Sends questions and hands answers over. All methods may be called by any thread."""

    def __init__(self, path: str | None, trace: Callable[[str], object] | None) -> None:
        """`path` is set for a server with a UNIX socket; `trace` is called with a line for each datagram."""
        self._trace = trace
        self._questions: PendingQueries[Question] = PendingQueries()
        self._queue: deque[Stat] = deque()
        self._socket, self._is_dual_stack = _new_socket(path)
        self._wake_in, self._wake_out = socket.socketpair()  # readable while the queue has something, and at the end
        self._wake_in.setblocking(False)
        self._joint: JointDescriptor | None = None
        self._reader: object = None  # stands for the thread that waits for the socket
        self._is_closed = False
        self._changed = threading.Condition(threading.Lock())  # for all of the above

    def open_question(self, process: ProcessIdentity, host: str, flags: int, has_asker: bool) -> Question:
        """Open a question; it is sent by `send`."""
        question = Question(host, has_asker)
        with self._changed:
            question.secret, question.datagram = self._questions.ask(process, question, flags)
        return question

    def send(self, question: Question, addresses: Iterable[Address]) -> None:
        """Send a question to all addresses of its host."""
        for address in addresses:
            sockaddr = address.sockaddr
            if self._is_dual_stack and address.family == socket.AF_INET:
                sockaddr = (f"::ffff:{sockaddr[0]}", int(sockaddr[1]))
            if self._trace is not None:
                self._trace(f"to {address}: {question.datagram.decode(errors='backslashreplace').strip()}")
            with contextlib.suppress(OSError):  # no way there: as if it had been lost on the way
                self._socket.sendto(question.datagram, sockaddr)

    def wait_for(self, question: Question, deadline: float) -> Stat | None:
        """Wait for the answer to a question; None if there is none before the deadline, or this is closed."""
        return self._wait(lambda: question.answer, deadline)

    def give_up(self, question: Question) -> Stat | None:
        """Close a question; return the answer if it came in the last moment."""
        with self._changed:
            self._questions.give_up(question.secret)
            return question.answer

    def put(self, stat: Stat) -> None:
        """Put an answer that was found without a server into the queue."""
        with self._changed:
            self._enqueue(stat)

    def next_answer(self, deadline: float) -> Stat | None:
        """Take an answer from the queue; None if there is none before the deadline, or this is closed.

        None, too, as soon as something arrives that answers no open question.
        """
        return self._wait(self._dequeue, deadline, ends_with_any=True)

    def fileno(self) -> int:
        """Return a descriptor that is readable while the queue or the socket has something."""
        with self._changed:
            if self._joint is None:
                self._joint = JointDescriptor(self._socket, self._wake_in)
            return self._joint.fileno()

    def close(self) -> None:
        """Close the sockets, and let all threads return that wait here: for None."""
        with self._changed:
            self._is_closed = True
            with contextlib.suppress(OSError):  # closed already
                self._wake_out.send(b".")
            self._changed.notify_all()
            if self._reader is None:
                self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close them whoever waits: that is for a fork, in which those threads do not exist."""
        if self._joint is not None:
            self._joint.close()
        for sock in (self._socket, self._wake_in, self._wake_out):
            sock.close()

    def _wait(self, take: Callable[[], Stat | None], deadline: float, ends_with_any: bool = False) -> Stat | None:
        """Wait until `take` returns something, which is called with the lock held."""
        me = object()  # not the thread: one that is interrupted may come here a second time
        try:
            try:
                return self._wait_as(me, take, deadline, ends_with_any)
            finally:
                self._leave(me)
        finally:  # an interrupt may end the first of them
            self._leave(me)

    def _wait_as(
        self, me: object, take: Callable[[], Stat | None], deadline: float, ends_with_any: bool
    ) -> Stat | None:
        has_waited = False
        while True:
            with self._changed:
                stat = take()
                if stat is not None or self._is_closed:
                    return stat
                left = deadline - time.monotonic()
                if has_waited and left <= 0:
                    return None
                has_waited = True
                if self._reader not in (None, me):
                    self._changed.wait(None if left == inf else min(max(left, 0.0), _LONGEST_SLEEP))
                    continue
                self._reader = me
                is_empty = not self._queue
            datagram = self._receive(deadline, is_empty)
            if datagram is not None and not self._hand_over(datagram) and ends_with_any:
                return None

    def _leave(self, me: object) -> None:
        """Let another thread be the reader, if this one is."""
        if self._reader is not me:
            return
        with self._changed:
            self._reader = None
            self._changed.notify_all()
            if self._is_closed:
                self.close_descriptors()

    def _receive(self, deadline: float, watch_queue: bool) -> bytes | None:
        """Wait for a datagram; None if the deadline passes or, if that is watched, something is in the queue."""
        poller = new_poller()
        poller.register(self._socket, READ)
        if watch_queue:
            poller.register(self._wake_in, READ)
        own = self._socket.fileno()
        if not any(descriptor == own for descriptor, _ in poll_until(poller, deadline)):
            return None
        try:
            datagram = self._socket.recv(MAX_DATAGRAM + 1)
        except OSError:
            return b""
        if self._trace is not None:
            self._trace(f"received: {datagram.decode(errors='backslashreplace')}")
        return datagram

    def _hand_over(self, datagram: bytes) -> bool:
        """Give an answer to whom it is for; return False if it answers no open question."""
        with self._changed:
            found = self._questions.receive(datagram)
            if found is None:
                return False
            answer, question = found
            stat = (answer.pid, answer.exists, question.host)
            if question.has_asker:
                question.answer = stat
                self._changed.notify_all()
            else:
                self._enqueue(stat)
            return True

    def _enqueue(self, stat: Stat) -> None:
        if not self._queue:
            with contextlib.suppress(OSError):  # closed
                self._wake_out.send(b".")
        self._queue.append(stat)
        self._changed.notify_all()

    def _dequeue(self) -> Stat | None:
        if not self._queue:
            return None
        if len(self._queue) == 1:
            with contextlib.suppress(OSError):  # closed, or interrupted here before
                self._wake_in.recv(1)
        return self._queue.popleft()


def _new_socket(path: str | None) -> tuple[socket.socket, bool]:
    """Make a socket for questions; return, too, whether it takes IPv4 addresses in the form of IPv6."""
    if path is not None:
        sock, is_dual_stack = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), False
        sock.bind("")  # a name of its own, or there is no way back
    else:
        try:
            sock, is_dual_stack = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), True
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # one socket for both
        except OSError:
            sock, is_dual_stack = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), False
    sock.setblocking(False)
    return sock, is_dual_stack
