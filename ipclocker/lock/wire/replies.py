"""Answers of the lock protocol: the bytes that a server writes, and the replies that a client reads from them.

A client skips lines and words that it does not know. The lines of LOCK_INFO are in info.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Union

from ...net.line_buffer import MAX_LINE
from ..model import Grant, HolderProcess, Owner
from .requests import format_seconds

if TYPE_CHECKING:
    from .info import HeldInfo, InfoReader


# Bytes of one line of an answer. It may have the name of a lock, its holder and their like, each of which came in a
# line of a request (of an older release, which set no other bound to them).
MAX_ANSWER_LINE = 4 * MAX_LINE


class Waiting(NamedTuple):
    """A message while the LOCK waits: the lock is busy, and the request was queued."""

    holder: bytes


class Obtained(NamedTuple):
    """A message that the wait is over; the answer follows."""


class Broke(NamedTuple):
    """A message that the lock was taken from this holder."""

    holder: bytes


class Recalled(NamedTuple):
    """A message that this holder of a lease was asked to end its command and to release the lock."""

    holder: bytes


class Lost(NamedTuple):
    """Notice, which nobody asked for, that this grant has ended without a release by its owner."""

    name: bytes
    token: int


class Recall(NamedTuple):
    """Notice, which nobody asked for, that this lease is recalled, and is not renewed any more."""

    name: bytes
    token: int


class Member(NamedTuple):
    """A host that may serve the lock space, and the addresses by which it is reached, each HOST:PORT."""

    host: bytes
    addresses: tuple[bytes, ...] = ()


class Space(NamedTuple):
    """Which lock space the server serves, told once a connection to a client that has set `space`.

    ttl: several servers share the space, and so many seconds after one has died another one serves; None: it is alone
    members: these servers, as far as they live
    """

    identity: bytes
    ttl: Optional[int] = None
    members: tuple[Member, ...] = ()


class LookFor(NamedTuple):
    """A request to look for the holder's process, if it is of the client's host, and to report it if it is gone."""

    name: bytes
    host: bytes
    pid: int


class Answer(NamedTuple):
    """Everything that the lines of one answer said; None and empty where they said nothing."""

    owner: bytes = b""
    locked: bool = False
    name: bytes | None = None
    token: int | None = None
    slots: int = 1
    min_hold: float = 0.0
    error: bytes | None = None
    renewed: bool = False
    current: bool | None = None
    version: bytes | None = None
    locks: tuple[tuple[bytes, bytes], ...] = ()
    held: tuple[HeldInfo, ...] = ()


Reply = Union[Waiting, Obtained, Broke, Recalled, Lost, Recall, LookFor, Space, Answer]


def _is_one(value: bytes) -> bool:
    return value == b"1"


def _number(value: bytes) -> int | None:
    return int(value) if value.isdigit() else None


def _decimal(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


# Lines of an answer: which field each sets, and how its value is read.
_FIELDS: dict[bytes, tuple[str, Callable[[bytes], object]]] = {
    b"owner": ("owner", bytes),
    b"locked": ("locked", _is_one),
    b"lockname": ("name", bytes),
    b"token": ("token", _number),
    b"slots": ("slots", _number),
    b"minhold": ("min_hold", _decimal),
    b"current": ("current", _is_one),
    b"renewed": ("renewed", lambda value: True),
    b"error": ("error", bytes),
}
_INFO_LINES = {b"held", b"waiter"}
_OF_HOLDER: dict[bytes, type[Waiting] | type[Broke] | type[Recalled]] = {
    b"print_waiting": Waiting,
    b"print_broke": Broke,
    b"print_recalled": Recalled,
}
_OF_GRANT: dict[bytes, type[Lost] | type[Recall]] = {b"lost": Lost, b"recall": Recall}


class AnswerReader:
    """Turns the lines that a server sends into replies, and skips lines that it does not know."""

    def __init__(self) -> None:
        self._space: Space | None = None  # whose members are still to come
        self._start_answer()

    def _start_answer(self) -> None:
        self._fields: dict[str, object] = {}
        self._locks: list[tuple[bytes, bytes]] = []
        self._info: InfoReader | None = None
        self._empty_lines = 0

    def read(self, lines: Iterable[bytes]) -> Iterator[Reply]:
        """Yield the replies that these lines complete, in their order."""
        for line in lines:
            words = line.split()
            if self._space is not None and words[:1] != [b"member"]:
                space, self._space = self._space, None
                yield space
            if not words:
                self._empty_lines += 1
                if self._empty_lines == 2:
                    yield self._end_answer()
                continue
            self._empty_lines = 0
            field = _FIELDS.get(words[0])  # nearly every line is one
            if field is not None:
                name, convert = field
                self._fields[name] = convert(words[1] if len(words) > 1 else b"")
                continue
            reply = self._read_line(words[0], words)
            if reply is not None:
                yield reply

    def _end_answer(self) -> Answer:
        if self._info is not None:
            self._fields["held"] = self._info.result()
        if self._locks:
            self._fields["locks"] = tuple(self._locks)
        answer = Answer(**self._fields)  # type: ignore[arg-type]
        self._start_answer()
        return answer

    def _read_line(self, verb: bytes, words: list[bytes]) -> Reply | None:
        value = words[1] if len(words) > 1 else b""
        if verb == b"lock" and len(words) > 2:
            self._locks.append((value, words[2]))
        elif verb in _INFO_LINES and len(words) > 1:
            if self._info is None:
                from .info import InfoReader  # only here, for an import that most clients do without

                self._info = InfoReader()
            self._info.read(words)
        elif verb == b"version":  # the one answer that ends with a single empty line
            self._fields["version"] = b" ".join(words[1:])
            return self._end_answer()
        elif verb == b"print_obtained":
            return Obtained()
        elif verb == b"space" and value:
            shared = words[2:3] == [b"replicated"]
            self._space = Space(value, (_number(words[3]) or 0) if shared and len(words) > 3 else 0 if shared else None)
        elif verb == b"member" and value and self._space is not None:
            member = Member(value, tuple(words[2:]))
            self._space = self._space._replace(members=(*self._space.members, member))
        elif verb in _OF_HOLDER:
            return _OF_HOLDER[verb](value)
        elif verb in _OF_GRANT and len(words) > 2 and words[2].isdigit():
            return _OF_GRANT[verb](value, int(words[2]))
        elif verb == b"autounlock_check" and len(words) > 3 and words[3].isdigit():
            return LookFor(value, words[2], int(words[3]))
        return None


# Answers, as a server writes them

END = b"\n\n"  # ends an answer, after the newline of its last line


def granted(grant: Grant, with_token: bool) -> bytes:
    """Write the answer to a LOCK that was granted; `with_token` if the client has asked for tokens."""
    if grant.slots != 1 or grant.min_hold:
        return b"".join(_terms(grant, with_token)) + END
    if with_token:
        return b"owner %b\nlocked 1\nlockname %b\ntoken %d\n\n\n" % (grant.owner[0], grant.name, grant.token)
    return b"owner %b\nlocked 1\nlockname %b\n\n\n" % (grant.owner[0], grant.name)


def _terms(grant: Grant, with_token: bool) -> Iterator[bytes]:
    yield b"owner %b\nlocked 1\nlockname %b\n" % (grant.owner[0], grant.name)
    if with_token:
        yield b"token %d\n" % grant.token
    if grant.slots != 1:
        yield b"slots %d\n" % grant.slots
    if grant.min_hold:
        yield b"minhold %b\n" % format_seconds(grant.min_hold)


def status(grant: Grant | None, owner: Owner) -> bytes:
    """Write the answer to STATUS, which also ends many others, to `owner`: `grant` is what it holds or waits for."""
    if grant is None:
        return b"owner \nlocked 0\n\n\n"
    if grant.owner == owner:
        return b"owner %b\nlocked 1\nlockname %b\n\n\n" % (grant.user, grant.name)
    return b"owner %b\nlocked 0\n\n\n" % grant.user


def waiting(holder: Grant) -> bytes:
    """Write to a waiting client who holds the lock."""
    return b"print_waiting %b\n" % holder.user


def look_for(name: bytes, process: HolderProcess) -> bytes:
    """Write to a client which process a holder's lock depends on; the 2 says that this server knows DEAD_PID."""
    return b"autounlock_check %b %b %d 2\n" % (name, process.host, process.pid)


OBTAINED = b"print_obtained\n"


def space(identity: str, ttl: int | None = None) -> bytes:
    """Write which lock space the server serves; with `ttl` (seconds) others may serve it in its place after that."""
    words = [b"space", identity.encode()]
    return b" ".join(words if ttl is None else [*words, b"replicated", b"%d" % ttl]) + b"\n"


def member(host: str, addresses: Iterable[str]) -> bytes:
    """Write which host may serve the same lock space, and its addresses."""
    return b" ".join([b"member", *(word.encode() for word in (host, *addresses))]) + b"\n"


def broke(grant: Grant) -> bytes:
    """Write from whom a lock was taken."""
    return b"print_broke %b\n" % grant.user


def listed(grant: Grant) -> bytes:
    """Write one line of LOCK_LIST."""
    return b"lock %b %b\n" % (grant.name, grant.user)


def recalled(grant: Grant) -> bytes:
    """Write whose lease was recalled."""
    return b"print_recalled %b\n" % grant.user


def lost(grant: Grant) -> bytes:
    """Write to a holder that it has lost its lock."""
    return b"lost %b %d\n" % (grant.name, grant.token)


def recall(grant: Grant) -> bytes:
    """Write to the holder of a lease that it is to end its command and to release the lock."""
    return b"recall %b %d\n" % (grant.name, grant.token)


def version(version: str, started: float) -> bytes:
    """Write the answer to VERSION; `started` is the server's start in seconds since 1970."""
    return b"version %b %d\n\n" % (version.encode(), started)


def renewed(name: bytes, token: int) -> bytes:
    """Write the answer to a RENEW of a grant that stands."""
    return b"renewed %b %d\n\n\n" % (name, token)


def current(stands: bool) -> bytes:
    """Write the answer to CHECK."""
    return b"current %d\n\n\n" % stands


def error(word: bytes) -> bytes:
    """Write the answer to a request that was not run."""
    return b"error %b\n\n\n" % word
