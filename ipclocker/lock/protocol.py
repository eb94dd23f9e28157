"""The lock protocol's lines: a server's reading of requests, a client's reading of answers, and both writings.

A request is some variable lines, which stay set for the rest of the connection, and a command line. Words are
bytes from end to end, so a name comes back exactly as it was sent, whatever its encoding. A variable whose value
means nothing is remembered as a fault until it is set well: a command that meets a fault is answered with it
and is not run. Lines and trailing words that are not known are skipped (PROTOCOL.md, "Lock protocol").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple, Union

from .table import Ask, Grant, Process

MAX_PID = 2**31 - 1  # a larger number is none of a process on any system
MAX_NAMES = 256  # lock names in one request
END = b"\n\n"  # what ends an answer, after the newline of its last line
_DECIMAL = re.compile(rb"\d{1,12}(\.\d{0,9})?")
_WHOLE = re.compile(rb"\d{1,20}")


class Variables(Ask):
    """The variables of one connection, as the request lines have set them so far."""

    waits = False
    autounlock = False
    pid = 0
    hostname = b""
    start: int | None = None
    boot = b""
    pidns: int | None = None
    faults: frozenset[bytes] = frozenset()

    def identify(self, address: str) -> None:
        """Work out the process that the lock depends on; `address` is where the client's connection is from."""
        self.process = (
            Process(self.hostname, self.pid, self.start, self.boot, self.pidns, address)
            if self.autounlock and self.pid
            else None
        )


# Request lines, as a server reads them. A setter raises ValueError or IndexError for a value that means nothing.


def _set_user(variables: Variables, words: list[bytes]) -> None:
    variables.user = words[1] if len(words) > 1 else b""


def _set_session(variables: Variables, words: list[bytes]) -> None:
    variables.session = words[1] if len(words) > 1 else b""


def _set_locks(variables: Variables, words: list[bytes]) -> None:
    if len(words) > 2:
        words = list(dict.fromkeys(words[1:]))
        if len(words) > MAX_NAMES:
            raise ValueError
        variables.names = tuple(words)
    else:
        variables.names = tuple(words[1:])


def _set_block(variables: Variables, words: list[bytes]) -> None:
    variables.waits = _flag(words[1])


def _set_timeout(variables: Variables, words: list[bytes]) -> None:
    seconds = words[1]
    if not ((seconds.isdigit() and len(seconds) <= 12) or _DECIMAL.fullmatch(seconds)):
        raise ValueError
    variables.hold = float(seconds)


def _set_autounlock(variables: Variables, words: list[bytes]) -> None:
    variables.autounlock = _flag(words[1])


def _set_pid(variables: Variables, words: list[bytes]) -> None:
    variables.pid = _whole(words[1])
    if variables.pid > MAX_PID:
        raise ValueError


def _set_hostname(variables: Variables, words: list[bytes]) -> None:
    variables.hostname = words[1] if len(words) > 1 else b""


def _set_start(variables: Variables, words: list[bytes]) -> None:
    variables.start = _whole(words[1])


def _set_boot(variables: Variables, words: list[bytes]) -> None:
    variables.boot = words[1] if len(words) > 1 else b""


def _set_pidns(variables: Variables, words: list[bytes]) -> None:
    variables.pidns = _whole(words[1])


def _set_token(variables: Variables, words: list[bytes]) -> None:
    variables.confirms = _flag(words[1])


_FLAGS = {b"0": False, b"1": True}


def _flag(word: bytes) -> bool:
    flag = _FLAGS.get(word)
    return bool(_whole(word)) if flag is None else flag


def _whole(word: bytes) -> int:
    if not _WHOLE.fullmatch(word):
        raise ValueError
    return int(word)


VARIABLES: dict[bytes, Callable[[Variables, list[bytes]], None]] = {
    b"user": _set_user,
    b"locks": _set_locks,
    b"block": _set_block,
    b"timeout": _set_timeout,
    b"autounlock": _set_autounlock,
    b"pid": _set_pid,
    b"hostname": _set_hostname,
    b"session": _set_session,
    b"start": _set_start,
    b"boot": _set_boot,
    b"pidns": _set_pidns,
    b"token": _set_token,
}


def grant_named(words: list[bytes]) -> tuple[bytes, int]:
    """The NAME and the N of a `GOT NAME N`, `RENEW NAME N` or `CHECK NAME N`. Raises ValueError."""
    if len(words) < 3:
        raise ValueError
    return words[1], _whole(words[2])


def process_named(words: list[bytes]) -> tuple[bytes, int]:
    """The H and the P of a `DEAD_PID H P`. Raises ValueError."""
    return grant_named(words)


# Answers, as a server writes them


def granted(grant: Grant, with_token: bool) -> bytes:
    """The answer to a LOCK that was granted."""
    if with_token:
        return b"owner %b\nlocked 1\nlockname %b\ntoken %d\n\n\n" % (grant.user, grant.name, grant.token)
    return b"owner %b\nlocked 1\nlockname %b\n\n\n" % (grant.user, grant.name)


def status(grant: Grant | None, ask: Ask) -> bytes:
    """The answer to STATUS, and the end of many others: `grant` is what stands for the asker, if anything."""
    if grant is None:
        return b"owner \nlocked 0\n\n\n"
    if grant.belongs_to(ask):
        return b"owner %b\nlocked 1\nlockname %b\n\n\n" % (grant.user, grant.name)
    return b"owner %b\nlocked 0\n\n\n" % grant.user


def waiting(holder: Grant) -> bytes:
    """A waiting client is told who holds the lock."""
    return b"print_waiting %b\n" % holder.user


def look_for(name: bytes, process: Process) -> bytes:
    """An asker is told which process the holder's lock depends on; the 2 says that DEAD_PID is known here."""
    return b"autounlock_check %b %b %d 2\n" % (name, process.host, process.pid)


OBTAINED = b"print_obtained\n"


def broke(grant: Grant) -> bytes:
    """Whose lock was broken."""
    return b"print_broke %b\n" % grant.user


def listed(grant: Grant) -> bytes:
    """One line of LOCK_LIST."""
    return b"lock %b %b\n" % (grant.name, grant.user)


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


# Requests, as a client writes them


def request(command: bytes, **variables: bytes | int | float | Iterable[bytes] | None) -> bytes:
    """The lines of one request: each variable that is not None, then the command."""
    lines = [_variable(name.encode(), value) for name, value in variables.items() if value is not None]
    return b"".join([*lines, command, b"\n"])


def _variable(name: bytes, value: bytes | int | float | Iterable[bytes]) -> bytes:
    if isinstance(value, bytes):
        return b"%b %b\n" % (name, value)
    if isinstance(value, int):
        return b"%b %d\n" % (name, value)
    if isinstance(value, float):
        at_least = max(value, 0.001) if value else value  # rounded to 0, a short time would mean for ever
        return b"%b %b\n" % (name, (b"%.3f" % at_least).rstrip(b"0").rstrip(b"."))
    return b"%b %b\n" % (name, b" ".join(value))


# Answers, as a client reads them


class Waiting(NamedTuple):
    """The lock is busy and the request was queued."""

    holder: bytes


class Obtained(NamedTuple):
    """The wait is over; the answer follows."""


class Broke(NamedTuple):
    """A BREAK_LOCK took the lock from this holder."""

    holder: bytes


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


Reply = Union[Waiting, Obtained, Broke, LookFor, Answer]


class AnswerReader:
    """Turns the lines that a server sends into replies. What it does not know, it skips."""

    def __init__(self) -> None:
        self._fields: dict[str, object] = {}
        self._locks: list[tuple[bytes, bytes]] = []
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
        elif verb == b"autounlock_check" and len(words) > 3 and words[3].isdigit():
            return LookFor(value, words[2], int(words[3]))
        return None
