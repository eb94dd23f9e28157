"""The lock protocol's lines: requests, as a server reads them, and both sides' writings (replies.py reads answers).

A request is some variable lines, which stay set for the rest of the connection, and a command line. Words are
bytes from end to end, so a name comes back exactly as it was sent, whatever its encoding. A variable whose value
means nothing is remembered as a fault until it is set well: a command that meets a fault is answered with it
and is not run. Lines and trailing words that are not known are skipped (PROTOCOL.md, "Lock protocol").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import inf
from typing import Callable

from ..model import Ask, Grant, HolderProcess

MAX_NUMBER = 2**63 - 1  # as SQLite and most kernels have it
MAX_PID = 2**31 - 1  # a larger number is none of a process on any system
MAX_NAMES = 256  # lock names in one request
MAX_COMMAND = 256  # bytes of a command that are told, as they go over the wire
END = b"\n\n"  # what ends an answer, after the newline of its last line
_DECIMAL = re.compile(rb"\d{1,12}(\.\d{0,9})?")
_WHOLE = re.compile(rb"\d{1,20}")


class RequestVariables(Ask):
    """The variables of one connection, as the request lines have set them so far."""

    waits = False
    tells = False  # the client takes lines that it has not asked for: `lost` and `recall`
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
            HolderProcess(self.hostname, self.pid, self.start, self.boot, self.pidns, address)
            if self.autounlock and self.pid
            else None
        )


# Request lines, as a server reads them. A setter raises ValueError or IndexError for a value that means nothing.


def _set_user(variables: RequestVariables, words: list[bytes]) -> None:
    variables.user = words[1] if len(words) > 1 else b""


def _set_session(variables: RequestVariables, words: list[bytes]) -> None:
    variables.session = words[1] if len(words) > 1 else b""


def _set_locks(variables: RequestVariables, words: list[bytes]) -> None:
    if len(words) > 2:
        words = list(dict.fromkeys(words[1:]))
        if len(words) > MAX_NAMES:
            raise ValueError
        variables.names = tuple(words)
    else:
        variables.names = tuple(words[1:])


def _set_block(variables: RequestVariables, words: list[bytes]) -> None:
    variables.waits = _flag(words[1])


def _set_timeout(variables: RequestVariables, words: list[bytes]) -> None:
    seconds = words[1]
    if not ((seconds.isdigit() and len(seconds) <= 12) or _DECIMAL.fullmatch(seconds)):
        raise ValueError
    variables.hold = float(seconds)


def _set_autounlock(variables: RequestVariables, words: list[bytes]) -> None:
    variables.autounlock = _flag(words[1])


def _set_pid(variables: RequestVariables, words: list[bytes]) -> None:
    variables.pid = _whole(words[1])
    if variables.pid > MAX_PID:
        raise ValueError


def _set_hostname(variables: RequestVariables, words: list[bytes]) -> None:
    variables.hostname = words[1] if len(words) > 1 else b""


def _set_start(variables: RequestVariables, words: list[bytes]) -> None:
    variables.start = _whole(words[1])


def _set_boot(variables: RequestVariables, words: list[bytes]) -> None:
    variables.boot = words[1] if len(words) > 1 else b""


def _set_pidns(variables: RequestVariables, words: list[bytes]) -> None:
    variables.pidns = _whole(words[1])


def _set_token(variables: RequestVariables, words: list[bytes]) -> None:
    variables.confirms = _flag(words[1])


def _set_lease(variables: RequestVariables, words: list[bytes]) -> None:
    variables.lease = _flag(words[1])


def _set_tell(variables: RequestVariables, words: list[bytes]) -> None:
    variables.tells = _flag(words[1])


def _set_command(variables: RequestVariables, words: list[bytes]) -> None:
    variables.command = words[1][:MAX_COMMAND] if len(words) > 1 else b""


_FLAGS = {b"0": False, b"1": True}


def _flag(word: bytes) -> bool:
    flag = _FLAGS.get(word)
    return bool(_whole(word)) if flag is None else flag


def _whole(word: bytes) -> int:
    if not _WHOLE.fullmatch(word) or int(word) > MAX_NUMBER:
        raise ValueError
    return int(word)


VARIABLES: dict[bytes, Callable[[RequestVariables, list[bytes]], None]] = {
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
    b"lease": _set_lease,
    b"tell": _set_tell,
    b"command": _set_command,
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


def held_line(grant: Grant, now: float) -> bytes:
    """One held lock in LOCK_INFO."""
    words = [b"held %b user %b token %d age %.3f" % (grant.name, grant.user, grant.token, now - grant.since)]
    if grant.process is not None:
        words.append(_process_words(grant.process))
    if grant.hold:
        words.append(b"%b %b" % (b"lease" if grant.lease else b"hold", _seconds(grant.hold)))
        if grant.deadline < inf:
            words.append(b"left %.3f" % max(grant.deadline - now, 0.0))
    if grant.recalled:
        words.append(b"recalled 1")
    if grant.outlived:
        words.append(b"outlived 1")
    if grant.confirm_by < inf:
        words.append(b"confirmed 0")
    if grant.command:
        words.append(b"command %b" % grant.command)
    return b" ".join(words) + b"\n"


def waiter_line(name: bytes, ask: Ask, address: str, age: float) -> bytes:
    """One of those that wait for a lock, in LOCK_INFO."""
    words = [b"waiter %b user %b age %.3f" % (name, ask.user, age)]
    if ask.process is not None:
        words.append(_process_words(ask.process))
    elif address:
        words.append(b"address %b" % address.encode())
    if ask.command:
        words.append(b"command %b" % ask.command)
    return b" ".join(words) + b"\n"


def _process_words(process: HolderProcess) -> bytes:
    words = b"host %b pid %d" % (process.host, process.pid) if process.host else b"pid %d" % process.pid
    return words + b" address %b" % process.address.encode() if process.address else words


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


def request(command: bytes, /, **variables: bytes | int | float | Iterable[bytes] | None) -> bytes:
    """The lines of one request: each variable that is not None, then the command."""
    lines = [_variable(name.encode(), value) for name, value in variables.items() if value is not None]
    return b"".join([*lines, command, b"\n"])


def _variable(name: bytes, value: bytes | int | float | Iterable[bytes]) -> bytes:
    if isinstance(value, bytes):
        return b"%b %b\n" % (name, value)
    if isinstance(value, int):
        return b"%b %d\n" % (name, value)
    if isinstance(value, float):
        return b"%b %b\n" % (name, _seconds(value))
    return b"%b %b\n" % (name, b" ".join(value))


def _seconds(value: float) -> bytes:
    at_least = max(value, 0.001) if value else value  # rounded to 0, a short time would mean for ever
    return (b"%.3f" % at_least).rstrip(b"0").rstrip(b".")


def encode_command(command: bytes) -> bytes:
    """A command as the variable `command` takes it: one word, cut if it is long, never within an escape."""
    pieces, length = [], 0
    for byte in command[:MAX_COMMAND]:
        piece = b"%c" % byte if 0x21 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        length += len(piece)
        if length > MAX_COMMAND:
            break
        pieces.append(piece)
    return b"".join(pieces)
