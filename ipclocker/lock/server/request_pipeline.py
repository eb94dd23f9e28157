"""Bytes in, commands out: the lines of one client, run one after another, with those kept that have to wait.

A line sets a variable or is a command (request_handler.py has those). The lines behind a command have to wait, up to a
bound, if it can't be finished now, if enough answers have gathered that the client should first read some, or if so
much was done that it is the turn of the other clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Callable, ClassVar, Optional

from ...net.line_buffer import LineTooLong, split_lines
from ..wire import requests
from ..wire.requests import RequestVariables
from .service import LockService

MAX_BACKLOG = 65_536  # bytes of requests kept behind one that waits: as much as one line may have
MAX_ANSWERS = 64  # answers that gather before the client is to read some: what fits into a socket's buffer
_LINES_AT_ONCE = 256  # lines run at a time: a millisecond of the loop

# What runs a line, given as its words: it returns whether the lines behind have to wait; None: it was a variable.
Handler = Callable[[Any, list[bytes]], Optional[bool]]


class RequestPipeline(RequestVariables):
    """The lines of one client. A subclass has what runs them, by their first word.

    `paused`: lines that arrive are kept, since a command waits, or for the client to read. `closing`: nothing more is
    read. `output`: the answers, in order. `reveals_uncommitted`: the output may show what has changed since the last
    answer. `claims_hold`: it says that the client holds a lock.
    """

    handlers: ClassVar[dict[bytes, Handler]]
    refusals: ClassVar[dict[bytes, Handler]]  # in their place while a variable is at fault
    of_one_grant: ClassVar[frozenset[bytes]]  # commands that see for themselves what their answer reveals
    paused = False
    closing = False
    reveals_uncommitted = False
    claims_hold = False
    _rest = b""  # the beginning of a line
    _backlog: Sequence[bytes] = ()  # lines that have to wait

    def __init__(self, service: LockService) -> None:
        self.service = service
        self.output: list[bytes] = []

    def refuse(self, word: bytes) -> None:
        """Answer with an error after which nothing that this client says can be made sense of."""
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that arrived at `now` (seconds, monotonic), and run the commands that they complete."""
        if self.closing:
            return
        self.service.now = now
        try:
            lines, self._rest = split_lines(self._rest, data)
        except LineTooLong:
            self.refuse(b"line_too_long")
            return
        if not self.paused:
            self._run(lines)
            return
        self._backlog = [*self._backlog, *lines]
        if sum(map(len, self._backlog)) + len(self._backlog) > MAX_BACKLOG:
            self.refuse(b"too_much_input")

    def run_backlog(self) -> None:
        """Run the lines that have waited."""
        lines, self._backlog = self._backlog, ()
        self._run(lines)

    def drop_backlog(self) -> None:
        """Run nothing any more."""
        self.closing = True
        self.paused = False
        self._backlog = ()

    def _run(self, lines: Sequence[bytes]) -> None:
        """Go through lines: set variables and run commands, up to one that can't be finished now, or to the bound."""
        self.paused = False
        rest = iter(lines)
        for line in rest if len(lines) <= _LINES_AT_ONCE else islice(rest, _LINES_AT_ONCE):
            words = line.split()
            if not words:
                continue
            handle = (self.refusals if self.faults else self.handlers).get(words[0])
            if handle is None:
                continue
            try:
                has_to_wait = handle(self, words)
            except (ValueError, IndexError):
                if words[0] not in requests.VARIABLES:
                    raise
                self.faults |= {words[0]}
                continue
            if has_to_wait is None:
                if self.faults:
                    self.faults -= {words[0]}
                continue
            if words[0] not in self.of_one_grant:
                self.reveals_uncommitted = True
            if has_to_wait or len(self.output) >= MAX_ANSWERS:
                self.paused = True
                self._backlog = list(rest)
                return
        if len(lines) > _LINES_AT_ONCE:
            self.paused = True
            self._backlog = list(rest)
