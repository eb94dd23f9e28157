"""A lock server under strace: what it wrote to its state, what it flushed to the disk, and what it answered when."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from ..support import PROJECT
from ..support.processes import children
from ..support.servers import Peer
from ..support.waiting import DEADLINE, wait_for
from .history import Result

OWN_CI = os.environ.get("CI") == "true"  # there the proof is never left out
WRITES = ("pwrite64", "write")
FLUSHES = ("fsync", "fdatasync")
# Whatever else could change a file is traced, too, so that a new way to write is not overlooked.
_OTHERS = "pwritev pwritev2 writev ftruncate fallocate sync_file_range sync syncfs unlink unlinkat rename renameat "
_TRACED = ",".join([*WRITES, *FLUSHES, *f"{_OTHERS}renameat2 openat creat sendto sendmsg recvfrom recvmsg".split()])

_START = "import sys; {before}; from ipclocker.__main__ import main; sys.argv[0] = 'lockerd'; main()"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")
_UNFINISHED = " <unfinished ...>"
_HEX = r"((?:\\x[0-9a-f]{2})*)"
_DESCRIPTOR = re.compile(rf"(\d+)<{_HEX}>")
_STRING = re.compile(rf'"{_HEX}"')
_RESULT = re.compile(r"\) += (-?\d+)")
_NUMBER = re.compile(r", (\d+)$")


class Call(NamedTuple):
    """One system call: `began` and `ended` are lines of the trace. What it has none of is empty or 0."""

    name: str
    began: int
    ended: int
    descriptor: int
    path: str  # of the descriptor, or that was named
    data: bytes
    number: int  # its last one: where it was written, how much was left
    flags: str
    result: int


class Traced:
    """A lockerd under strace, on a UNIX socket in `folder`, with its state in there, too.

    `before` is done in its process first. `inject` are the words that let strace interfere.
    """

    def __init__(self, folder: Path, before: str = "pass", inject: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.socket = folder / "lockerd"
        self.state = folder / "state" / "db"
        self._log = folder / "trace"
        self.state.parent.mkdir(exist_ok=True)
        self.socket.unlink(missing_ok=True)
        words = ["--nofork", "--path", str(self.socket), "--state", str(self.state)]
        command = [
            "strace",
            "-f",
            "-y",
            "-xx",
            "-s",
            "1000000",
            "-o",
            str(self._log),
            "-e",
            f"trace={_TRACED}",
            *inject,
        ]
        command += [sys.executable, "-c", _START.format(before=before), *words]
        with (folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stderr=stderr)

    def await_it(self) -> bool:
        """Wait until it listens; False if it has ended before."""
        wait_for(lambda: "listening on" in self.said() or self._process.poll() is not None, "lockerd under strace")
        return "listening on" in self.said()

    def connect(self) -> Peer:
        return Peer(str(self.socket))

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        pid = next(iter(children(self._process.pid)), 0)
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
        self._process.wait(DEADLINE)

    def said(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def calls(self) -> list[Call]:
        """What it did, in the order in which that ended."""
        return list(_read(self._log.read_text().splitlines()))

    def __enter__(self) -> Traced:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _read(lines: list[str]) -> Iterator[Call]:
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue  # a signal, an end
        thread, name, rest = found.groups()
        if rest.endswith(_UNFINISHED):
            begun[thread] = (number, rest[: -len(_UNFINISHED)])
            continue
        began, before = begun.pop(thread) if "resumed>" in line[:80] else (number, "")
        yield _call(name, began, number, before + rest)
    for began, before in begun.values():  # cut off by the end
        name = _LINE.match(lines[began])
        assert name is not None
        yield _call(name[2], began, len(lines), before)


def _call(name: str, began: int, ended: int, text: str) -> Call:
    words, _, _ = text.rpartition(") ")
    words = words or text
    result = _RESULT.search(text)
    descriptor = _DESCRIPTOR.match(text)
    strings = [_bytes(string) for string in _STRING.findall(words)]
    number = _NUMBER.search(words)
    path = os.fsdecode(_bytes(descriptor[2])) if descriptor else os.fsdecode(strings[0]) if strings else ""
    return Call(
        name,
        began,
        ended,
        int(descriptor[1]) if descriptor else -1,
        path,
        strings[0] if strings and descriptor else b"",
        int(number[1]) if number else 0,
        words if name == "openat" else "",
        int(result[1]) if result else -1,
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


# What was asked and answered


class Request(NamedTuple):
    """A LOCK or UNLOCK of one name: from which line on it may have been read, and from which on answered."""

    verb: str
    name: str
    received: int
    answered: float = inf
    result: Result = ()


def requests(calls: list[Call]) -> list[Request]:
    """All that was asked, one name each, in the order in which it was received."""
    found = []
    for number, call in enumerate(calls):
        if call.name != "recvfrom" or not call.data.endswith((b"\nLOCK\n", b"\nUNLOCK\n")):
            continue
        words = dict(line.split(maxsplit=1) for line in call.data.decode().splitlines() if " " in line)
        verb = call.data.decode().split()[-1]
        answer = next((sent for sent in calls[number:] if _answers(sent, call)), None)
        request = Request(verb, words["locks"], call.began)
        found.append(
            request if answer is None else request._replace(answered=answer.began, result=_result(answer.data))
        )
    return found


def _answers(sent: Call, call: Call) -> bool:
    return sent.name == "sendto" and (sent.descriptor, sent.path) == (call.descriptor, call.path)


def _result(answer: bytes) -> Result:
    words = dict(line.split(maxsplit=1) for line in answer.decode().splitlines() if len(line.split()) == 2)
    if words.get("locked") == "1":
        return ("granted", words["lockname"], int(words["token"]))
    return ("freed",)


def not_awaited(calls: list[Call], state: Path) -> list[str]:
    """The answers that were given before what they say was on disk.

    For a grant: a write to the state that has the lock's name in it, which was never used before, and a flush of that
    file behind it. For a release: a write behind the request, and a flush behind that.
    """
    on_state = [call for call in calls if call.path.startswith(str(state)) and call.result >= 0]
    writes = [call for call in on_state if call.name in WRITES]
    flushes = [call for call in on_state if call.name in FLUSHES]
    found = []
    for request in requests(calls):
        name = request.name.encode() if request.verb == "LOCK" else b""
        if request.answered == inf:
            continue
        kept = any(
            any(
                flush.path == write.path and write.ended < flush.began and flush.ended < request.answered
                for flush in flushes
            )
            for write in writes
            if write.began > request.received and name in write.data
        )
        if not kept:
            found.append(f"{request.verb} {request.name}")
    return found


def need_strace() -> None:
    """Skip the test, with a word, where there is no strace that works."""
    if not shutil.which("strace"):
        _leave_out("strace is not installed")
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True)
    if tried.returncode:
        _leave_out(f"strace may not trace: {tried.stderr.strip()}")


def _leave_out(why: str) -> NoReturn:
    if OWN_CI:
        pytest.fail(f"the proof on disk needs strace: {why}")
    pytest.skip(f"THE PROOF ON DISK IS LEFT OUT: {why}")
