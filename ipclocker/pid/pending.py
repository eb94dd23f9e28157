"""The questions that pid servers have not answered yet, and the rule which answer is believed.

Anybody can send a datagram that says a process is gone, in the name of any address. So each question carries, as its
host word, a number that nobody can guess; an answer counts if it carries the number of a question that is still open
and names the same process. It may come from any address, since a host may have many, and it counts once.
"""

from __future__ import annotations

import os
from typing import Generic, TypeVar

from ..process.identity import ProcessIdentity
from .protocol import ALWAYS, PidAnswer, PidQuestion, read_answer, write_question

About = TypeVar("About")


class PendingQueries(Generic[About]):
    """The open questions, the oldest first; for more than `most` of them the oldest are given up."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._open: dict[bytes, tuple[int, About]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(
        self, process: ProcessIdentity, about: About, flags: int = ALWAYS, silent: float | None = None
    ) -> tuple[bytes, bytes]:
        """Open a question; return its secret, by which it can be given up, and the datagram, to be sent any time.

        `about` is what `receive` returns with the answer; `silent` as in PidQuestion.
        """
        secret = os.urandom(8).hex().encode()
        self._open[secret] = (process.pid, about)
        if len(self._open) > self._most:
            del self._open[next(iter(self._open))]
        seconds = None if silent is None else int(silent)
        return secret, write_question(PidQuestion(process.pid, secret, flags, *process[1:], seconds))

    def give_up(self, secret: bytes) -> bool:
        """Close a question, so that no answer to it is believed any more; return True if it was open."""
        return self._open.pop(secret, None) is not None

    def receive(self, datagram: bytes) -> tuple[PidAnswer, About] | None:
        """Read an answer and close its question; return it with what that was about, None if no open one fits."""
        answer = read_answer(datagram)
        if answer is None:
            return None
        pid, about = self._open.get(answer.host, (None, None))
        if answer.pid != pid or about is None:
            return None
        del self._open[answer.host]
        return answer, about
