"""Answers of the lock protocol: the bytes that a server writes, and the replies that a client reads from them.

A client skips lines and words that it does not know. The lines of LOCK_INFO are in info.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Union

from ..model import Grant, HolderProcess, Owner

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


# Answers, as a server writes them

END = b"\n\n"  # ends an answer, after the newline of its last line


def granted(grant: Grant, with_token: bool) -> bytes:
    """The answer to a LOCK that was granted."""
    if with_token:
        return b"owner %b\nlocked 1\nlockname %b\ntoken %d\n\n\n" % (grant.owner[0], grant.name, grant.token)
    return b"owner %b\nlocked 1\nlockname %b\n\n\n" % (grant.owner[0], grant.name)


def status(grant: Grant | None, owner: Owner) -> bytes:
    """The answer to STATUS, and the end of many others: `grant` is what stands for the asker, if anything."""
    if grant is None:
        return b"owner \nlocked 0\n\n\n"
    if grant.owner == owner:
        return b"owner %b\nlocked 1\nlockname %b\n\n\n" % (grant.user, grant.name)
    return b"owner %b\nlocked 0\n\n\n" % grant.user


def waiting(holder: Grant) -> bytes:
    """A waiting client is told who holds the lock."""
    return b"print_waiting %b\n" % holder.user


def look_for(name: bytes, process: HolderProcess) -> bytes:
    """An asker is told which process the holder's lock depends on; the 2 says that DEAD_PID is known here."""
    return b"autounlock_check %b %b %d 2\n" % (name, process.host, process.pid)


OBTAINED = b"print_obtained\n"


def broke(grant: Grant) -> bytes:
    """Whose lock was broken."""
    return b"print_broke %b\n" % grant.user


def listed(grant: Grant) -> bytes:
    """One line of LOCK_LIST."""
    return b"lock %b %b\n" % (grant.name, grant.user)


def recalled(grant: Grant) -> bytes:
    """Whose lease was recalled."""
    return b"print_recalled %b\n" % grant.user


def lost(grant: Grant) -> bytes:
    """A holder is told that its lock is not its own any more."""
    return b"lost %b %d\n" % (grant.name, grant.token)


def recall(grant: Grant) -> bytes:
    """A holder is told to end what its lease protects, and to give it back."""
    return b"recall %b %d\n" % (grant.name, grant.token)


def version(version: str, started: float) -> bytes:
    """The answer to VERSION: `started` is the server's start as seconds since 1970."""
    return b"version %b %d\n\n" % (version.encode(), started)


def renewed(name: bytes, token: int) -> bytes:
    """The answer to a RENEW of a grant that stands."""
    return b"renewed %b %d\n\n\n" % (name, token)


def current(stands: bool) -> bytes:
    """The answer to CHECK."""
    return b"current %d\n\n\n" % stands


def error(word: bytes) -> bytes:
    """The answer to a request that was not run."""
    return b"error %b\n\n\n" % word
