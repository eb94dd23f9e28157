"""Requests of the lock protocol: the lines that a client writes and a server reads (replies.py has the answers).

A request is some variable lines, which stay set for the rest of the connection, and a command line. Words are
bytes from end to end, so a name comes back exactly as it was sent, whatever its encoding. A variable whose value
means nothing is a fault until it is set to a valid value: while there is a fault, a command is not run, and is
answered with the fault. Lines and trailing words that are not known are skipped (PROTOCOL.md, "Lock protocol").

A request may arrive late, from a connection that its client has given up since. So a client that has a new session for
each acquisition says so behind its name: `session X once`. The first UNLOCK of such a session is its end: the server
remembers it for ten minutes, and a LOCK that comes with it is answered `error session_over`, since nobody would ever
give back what it grants. (An older client keeps one session, without that word, and may LOCK again behind UNLOCK.) And
`UNLOCK NAME N` releases that very grant and nothing else, so it can be no other that the same owner has meanwhile.

`waited S` says for how long the client has waited already when it comes back to a server that was started again, or to
another one that serves in its place: it is queued before those that have waited less.

`slots N` says how many holders the lock may have while this is one of them (0: any number), `minhold S` for how long it
is held at least. The answer that grants the lock says both again, so a client sees that the server knows them.

`process 1` says the same as `autounlock 1`. It is for clients whose program has not asked for that: a classic server
skips it, and is spared the look-ups of `hostname` by which one that is not known ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Callable, Union

from ..model import HolderProcess, LockRequest

MAX_NUMBER = 2**63 - 1  # as SQLite and most kernels have it
MAX_PID = 2**31 - 1  # no system has a process with a larger number
MAX_SECONDS = 999_999_999_999  # of a hold time: 12 digits before the point
MAX_NAME = 1_024  # bytes of a lock name
MAX_NAMES = 256  # lock names in one request; each is looked up in the table, so this bounds the work of one line
MAX_COMMAND = 256  # bytes of a command as it goes over the wire: enough for people, and a bound for the server's memory
MAX_WORD = 1_024  # bytes of a user, host name or session, so that a line about a lock with all of them can be read
_DECIMAL = re.compile(rb"\d{1,12}(\.\d{0,9})?")
_WHOLE = re.compile(rb"\d{1,20}")


class RequestVariables:
    """The variables of one connection, as the request lines have set them so far (PROTOCOL.md names them)."""

    user = b""
    session = b""
    once = False  # the session is one acquisition's, and is over with its UNLOCK
    names: tuple[bytes, ...] = ()
    has_long_name = False  # one of them is longer than MAX_NAME
    waits = False  # `block`
    hold = 0.0  # `timeout`, seconds; 0: for ever
    lease = False
    waited = 0.0  # seconds
    slots = 1
    min_hold = 0.0  # `minhold`, seconds
    command = b""
    confirms = False  # `token`: a grant's token is told, and a waited grant is confirmed
    tells = False  # the client takes lines that it has not asked for: `lost` and `recall`
    autounlock = False
    names_process = False  # `process`
    pid = 0
    hostname = b""
    start: int | None = None
    boot = b""
    pidns: int | None = None
    timens: int | None = None
    machine = b""
    faults: frozenset[bytes] = frozenset()

    def lock_request(self, address: str) -> LockRequest:
        """Return what a LOCK asks for under these variables; `address` is where its client is connected from."""
        process = None
        if (self.autounlock or self.names_process) and self.pid:
            process = HolderProcess(
                self.hostname, self.pid, self.start, self.boot, self.pidns, address, self.machine, self.timens
            )
        owner = (self.user, self.session)
        return LockRequest(
            owner,
            self.names,
            self.hold,
            self.lease,
            process,
            self.command,
            self.confirms,
            self.waited,
            self.slots,
            self.min_hold,
        )


# Request lines, as a server reads them. A setter raises ValueError or IndexError for a value that means nothing.


Setter = Callable[[RequestVariables, list[bytes]], None]


def _word(name: str) -> Setter:
    """Make the setter of a variable that is one word of MAX_WORD bytes at most, which may be missing."""

    def set_word(variables: RequestVariables, words: list[bytes]) -> None:
        word = words[1] if len(words) > 1 else b""
        if len(word) > MAX_WORD:
            raise ValueError
        setattr(variables, name, word)

    return set_word


def _set_session(variables: RequestVariables, words: list[bytes]) -> None:
    _set_session_word(variables, words)
    variables.once = words[2:3] == [b"once"]


_set_session_word = _word("session")


def _value(name: str, read: Callable[[bytes], object]) -> Setter:
    """Make the setter of a variable whose word `read` turns into its value."""

    def set_value(variables: RequestVariables, words: list[bytes]) -> None:
        setattr(variables, name, read(words[1]))

    return set_value


def _set_locks(variables: RequestVariables, words: list[bytes]) -> None:
    if len(words) == 2:  # nearly always
        variables.names = (words[1],)
        variables.has_long_name = len(words[1]) > MAX_NAME
        return
    names = tuple(dict.fromkeys(words[1:]))
    if len(names) > MAX_NAMES:
        raise ValueError
    variables.names = names
    variables.has_long_name = any(len(name) > MAX_NAME for name in names)


def _set_command(variables: RequestVariables, words: list[bytes]) -> None:
    variables.command = words[1][:MAX_COMMAND] if len(words) > 1 else b""


_FLAGS = {b"0": False, b"1": True}


def _flag(word: bytes) -> bool:
    flag = _FLAGS.get(word)
    return bool(_whole(word)) if flag is None else flag


def _seconds(word: bytes) -> float:
    if not ((word.isdigit() and len(word) <= 12) or _DECIMAL.fullmatch(word)):
        raise ValueError
    return float(word)


def _whole(word: bytes, most: int = MAX_NUMBER) -> int:
    if not _WHOLE.fullmatch(word) or int(word) > most:
        raise ValueError
    return int(word)


VARIABLES: dict[bytes, Setter] = {
    b"user": _word("user"),
    b"locks": _set_locks,
    b"block": _value("waits", _flag),
    b"timeout": _value("hold", _seconds),
    b"autounlock": _value("autounlock", _flag),
    b"process": _value("names_process", _flag),
    b"pid": _value("pid", partial(_whole, most=MAX_PID)),
    b"hostname": _word("hostname"),
    b"session": _set_session,
    b"start": _value("start", _whole),
    b"boot": _word("boot"),
    b"pidns": _value("pidns", _whole),
    b"timens": _value("timens", _whole),
    b"machine": _word("machine"),
    b"token": _value("confirms", _flag),
    b"lease": _value("lease", _flag),
    b"tell": _value("tells", _flag),
    b"waited": _value("waited", _seconds),
    b"slots": _value("slots", _whole),
    b"minhold": _value("min_hold", _seconds),
    b"command": _set_command,
}


def grant_named(words: list[bytes]) -> tuple[bytes, int]:
    """Read NAME and N of `GOT NAME N` and the like. Raises ValueError if they are not there."""
    if len(words) < 3:
        raise ValueError
    return words[1], _whole(words[2])


def process_named(words: list[bytes]) -> tuple[bytes, int]:
    """Read H and P of `DEAD_PID H P`. Raises ValueError if one is missing or wrong."""
    return grant_named(words)


# Requests, as a client writes them


Value = Union[bytes, int, float, tuple[bytes, ...]]  # of a variable


def request(command: bytes, /, **variables: bytes | int | float | Iterable[bytes] | None) -> bytes:
    """Write the lines of one request: each variable that is not None, then the command."""
    lines = [_variable(name, value) for name, value in variables.items() if value is not None]
    return b"".join([*lines, command, b"\n"])


def news_and_command(command: bytes, variables: Mapping[str, Value], sent: dict[str, Value]) -> bytes:
    """Write the lines of one request: each variable of which the server has another value, then the command.

    `sent` is what the server has; the news are added to it.
    """
    lines = []
    for name, value in variables.items():  # most have not changed, and cost a comparison
        if sent.get(name) != value:
            sent[name] = value
            lines.append(_variable(name, value))
    lines += (command, b"\n")
    return b"".join(lines)


def _variable(name: str, value: bytes | int | float | Iterable[bytes]) -> bytes:
    if isinstance(value, int):
        value = b"%d" % value
    elif isinstance(value, float):
        value = format_seconds(value)
    elif not isinstance(value, bytes):
        value = b" ".join(value)
    return b"%b %b\n" % (name.encode(), value)


def format_seconds(value: float) -> bytes:
    """Write seconds as the protocol has them: to the millisecond, without trailing zeros."""
    at_least = max(value, 0.001) if value else value  # rounded to 0, a short time would mean for ever
    return (b"%.3f" % at_least).rstrip(b"0").rstrip(b".")


def encode_command(command: bytes) -> bytes:
    """Encode a command for the variable `command`: one word of MAX_COMMAND bytes at most, not cut within an escape."""
    pieces, length = [], 0
    for byte in command[:MAX_COMMAND]:
        piece = b"%c" % byte if 0x21 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        length += len(piece)
        if length > MAX_COMMAND:
            break
        pieces.append(piece)
    return b"".join(pieces)
