"""What a lock server says, as a client reads it: lines turned into replies, and what is not known is skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    from .info import HeldInfo, InfoReader


class Waiting(NamedTuple):
    """The lock is busy and the request was queued."""

    holder: bytes


class Obtained(NamedTuple):
    """The wait is over; the answer follows."""


class Broke(NamedTuple):
    """A BREAK_LOCK took the lock from this holder."""

    holder: bytes


class Recalled(NamedTuple):
    """This holder of a lease was asked to end what it protects, and to give it back."""

    holder: bytes


class Lost(NamedTuple):
    """Unasked: this grant has ended, and not because its owner has given it back."""

    name: bytes
    token: int


class Recall(NamedTuple):
    """Unasked: this lease is asked for back, and is not renewed any more."""

    name: bytes
    token: int


class LookFor(NamedTuple):
    """The holder's lock depends on this process: whoever is on its host can say that it is gone."""

    name: bytes
    host: bytes
    pid: int


class Answer(NamedTuple):
    """The end of an answer, with all that its lines said; None and empty where they said nothing."""

    owner: bytes = b""
    locked: bool = False
    name: bytes | None = None
    token: int | None = None
    error: bytes | None = None
    renewed: bool = False
    current: bool | None = None
    version: bytes | None = None
    locks: tuple[tuple[bytes, bytes], ...] = ()
    held: tuple[HeldInfo, ...] = ()


Reply = Union[Waiting, Obtained, Broke, Recalled, Lost, Recall, LookFor, Answer]


_INFO_LINES = {b"held", b"waiter"}
_UNASKED: dict[bytes, type[Lost] | type[Recall]] = {b"lost": Lost, b"recall": Recall}


class AnswerReader:
    """Turns the lines that a server sends into replies. What it does not know, it skips."""

    def __init__(self) -> None:
        self._fields: dict[str, object] = {}
        self._locks: list[tuple[bytes, bytes]] = []
        self._info: InfoReader | None = None
        self._empty_lines = 0

    def read(self, lines: Iterable[bytes]) -> Iterator[Reply]:
        """The replies that these lines complete, in their order."""
        for line in lines:
            words = line.split()
            if not words:
                self._empty_lines += 1
                if self._empty_lines == 2:
                    yield self._end()
                continue
            self._empty_lines = 0
            reply = self._word(words[0], words)
            if reply is not None:
                yield reply

    def _end(self) -> Answer:
        if self._info is not None:
            self._fields["held"] = self._info.result()
        answer = Answer(locks=tuple(self._locks), **self._fields)  # type: ignore[arg-type]
        self.__init__()  # type: ignore[misc]
        return answer

    def _word(self, verb: bytes, words: list[bytes]) -> Reply | None:
        value = words[1] if len(words) > 1 else b""
        if verb == b"owner":
            self._fields["owner"] = value
        elif verb == b"locked":
            self._fields["locked"] = value == b"1"
        elif verb == b"lockname":
            self._fields["name"] = value
        elif verb == b"token" and value.isdigit():
            self._fields["token"] = int(value)
        elif verb == b"current":
            self._fields["current"] = value == b"1"
        elif verb == b"renewed":
            self._fields["renewed"] = True
        elif verb == b"lock" and len(words) > 2:
            self._locks.append((value, words[2]))
        elif verb in _INFO_LINES and len(words) > 1:
            if self._info is None:
                from .info import InfoReader  # only here, for an import that most clients do without

                self._info = InfoReader()
            self._info.read(words)
        elif verb == b"error":
            self._fields["error"] = value
        elif verb == b"version":  # the one answer that has its end in a single empty line
            self._fields["version"] = b" ".join(words[1:])
            return self._end()
        elif verb == b"print_waiting":
            return Waiting(value)
        elif verb == b"print_obtained":
            return Obtained()
        elif verb == b"print_broke":
            return Broke(value)
        elif verb == b"print_recalled":
            return Recalled(value)
        elif verb in _UNASKED and len(words) > 2 and words[2].isdigit():
            return _UNASKED[verb](value, int(words[2]))
        elif verb == b"autounlock_check" and len(words) > 3 and words[3].isdigit():
            return LookFor(value, words[2], int(words[3]))
        return None
