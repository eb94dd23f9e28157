"""Questions to pid servers that are open: what is asked, and which answer is believed.

Anybody can send a datagram that says a process is gone, in the name of any address. So each question carries, as its
host word, a number that nobody can guess; an answer counts if it carries that of a question that is still open and
names the same process. It may come from any address, since a host may have many, and it counts once.
"""

from __future__ import annotations

import os
from typing import Generic, TypeVar

from ..process.identity import ProcessIdentity
from .protocol import ALWAYS, PidAnswer, PidQuestion, read_answer, write_question

About = TypeVar("About")


class PendingQueries(Generic[About]):
    """What is asked and not answered yet, the eldest first; `most` of them, for more the eldest are given up."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._open: dict[bytes, tuple[int, About]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, process: ProcessIdentity, about: About, flags: int = ALWAYS) -> tuple[bytes, bytes]:
        """Open a question: its secret, by which it can be given up, and the datagram to send, however often."""
        secret = os.urandom(8).hex().encode()
        self._open[secret] = (process.pid, about)
        if len(self._open) > self._most:
            del self._open[next(iter(self._open))]
        pid, start, boot, pidns = process
        return secret, write_question(PidQuestion(pid, secret, flags, start, boot, pidns))

    def give_up(self, secret: bytes) -> bool:
        """Believe no answer to this question any more; whether it was open."""
        return self._open.pop(secret, None) is not None

    def receive(self, datagram: bytes) -> tuple[PidAnswer, About] | None:
        """The answer in a datagram and what its question was about, if it fits one that is open; that is closed."""
        answer = read_answer(datagram)
        if answer is None:
            return None
        pid, about = self._open.get(answer.host, (None, None))
        if answer.pid != pid or about is None:
            return None
        del self._open[answer.host]
        return answer, about
