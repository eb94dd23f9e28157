"""The datagrams of the pid protocol: questions and answers, written and read.

    PIDR PID [HOST [FLAGS [NAME=VALUE ...]]]      a newline may end it
    EXIS PID 1 HOST     EXIS PID 0 HOST     UNKN PID na HOST

FLAGS is the sum of the answers that are wanted: 1 if the process exists, 2 if it does not, 4 if that can't be known; 3
if left out. HOST is sent back as it came, so a client that puts a word there that nobody can guess knows the answer to
its own question, from a classic server too. PROTOCOL.md, "Pid protocol", has the rest.

The kernel gives a number to one process after another. The words behind FLAGS, which a classic server skips, say
which process is meant, as far as the client knows:

    start=TICKS     when it was started, in clock ticks since boot (proc(5), /proc/PID/stat, field 22)
    boot=UUID       the boot of its kernel (/proc/sys/kernel/random/boot_id)
    pidns=NUMBER    the pid namespace of its number (the inode of /proc/PID/ns/pid)
    timens=NUMBER   the time namespace in which `start` was read (the inode of /proc/PID/ns/time)
    machine=HASH    its machine (process/viewpoint.py)
    host=NAME       its host, as that calls itself
    silent=SECONDS  for how long its kernel has not been heard of

process/viewpoint.py has the rules by which a server answers. Other words are skipped; an invalid value of one of these
makes the question one that is not answered.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Optional

from ..net.text import decode_text, encode_text

IF_EXISTS, IF_GONE, IF_UNKNOWN = 1, 2, 4
ALWAYS = IF_EXISTS | IF_GONE | IF_UNKNOWN
USUAL = IF_EXISTS | IF_GONE  # for a question without FLAGS
MAX_DATAGRAM = 1023  # bytes; a longer datagram is neither a question nor an answer (classic servers read 1024)

# The words behind FLAGS, and the fields of a question that they are; in the same order.
_WORDS = {
    b"start": "start",
    b"boot": "boot",
    b"pidns": "pidns",
    b"timens": "timens",
    b"machine": "machine",
    b"host": "name",
    b"silent": "silent",
}
_TEXTS = ("boot", "machine", "name")
_ANSWER = re.compile(rb"(?:EXIS (\d{1,20}) ([01])|UNKN (\d{1,20}) na) (\S+)")


class PidQuestion(NamedTuple):
    """A question whether a process exists; with an empty `host` the answer has the server's own name.

    `name` is the host of the process, as that calls itself; `silent` in seconds.
    """

    pid: int
    host: bytes = b""
    flags: int = USUAL
    start: Optional[int] = None
    boot: str = ""
    pidns: Optional[int] = None
    timens: Optional[int] = None
    machine: str = ""
    name: str = ""
    silent: Optional[int] = None


class PidAnswer(NamedTuple):
    """An answer: `exists` is None where that can't be known; `host` is the question's."""

    pid: int
    exists: Optional[bool]
    host: bytes


def write_question(question: PidQuestion) -> bytes:
    """Write the datagram of a question, whose `host` is one word."""
    words = [b"PIDR %d %b %d" % question[:3]]
    words += [b"%b=%b" % (word, _word(value)) for word, value in zip(_WORDS, question[3:]) if value not in (None, "")]
    return b" ".join(words) + b"\n"


def _word(value: str | int | None) -> bytes:
    return b"%d" % value if isinstance(value, int) else encode_text(value or "")


def read_question(datagram: bytes) -> PidQuestion | None:
    """Read the question of a datagram; None if it has no question, or none about a positive number."""
    words = datagram.split()
    if len(words) < 2 or len(datagram) > MAX_DATAGRAM or words[0] != b"PIDR":
        return None
    try:
        pid = _whole(words[1])
        host = words[2] if len(words) > 2 else b""
        flags = _whole(words[3]) & ALWAYS if len(words) > 3 else USUAL
        plain = PidQuestion(pid, host, flags)
        question = _with_identity(plain, words[4:]) if len(words) > 4 else plain
    except ValueError:
        return None
    return question if pid > 0 else None


def _with_identity(question: PidQuestion, words: list[bytes]) -> PidQuestion:
    for word in words:
        name, _, value = word.partition(b"=")
        field = _WORDS.get(name)
        if field is not None:
            fields: dict[str, Any] = {field: decode_text(value) if field in _TEXTS else _whole(value)}
            question = question._replace(**fields)
    return question


def _whole(word: bytes) -> int:
    if not word.isdigit() or len(word) > 20:  # int() takes signs, underscores and endless digits, too
        raise ValueError
    return int(word)


def write_answer(answer: PidAnswer) -> bytes:
    """Write the datagram of an answer."""
    pid, exists, host = answer
    if exists is None:
        return b"UNKN %d na %b" % (pid, host)
    return b"EXIS %d %d %b" % (pid, exists, host)


def read_answer(datagram: bytes) -> PidAnswer | None:
    """Read the answer of a datagram; None if it has no answer."""
    found = _ANSWER.match(datagram)
    if found is None:
        return None
    pid, exists, unknown, host = found.groups()
    if unknown is not None:
        return PidAnswer(int(unknown), None, host)
    return PidAnswer(int(pid), exists == b"1", host)


def is_wanted(flags: int, exists: bool | None) -> bool:
    """Return True if the client with these FLAGS wants this answer."""
    return bool(flags & (IF_UNKNOWN if exists is None else IF_EXISTS if exists else IF_GONE))
