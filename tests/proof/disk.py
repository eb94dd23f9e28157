"""What a disk may hold after a power cut, from a trace of what was written and flushed.

Only what was flushed is there for sure. Of what was written since, any part may be there, in sectors; of the files
that were made or removed since the folder was flushed, any. A lock server that is started on such a disk has to know
all that was answered before the cut.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Optional

from .trace import FLUSHES, WRITES, Call, Request

_SECTOR = 512
_HARMLESS = ("recvfrom", "recvmsg", "sendto", "sendmsg", "openat", "creat")


class _Change(NamedTuple):
    """Bytes from an offset on, or (without bytes) that the file ends there."""

    ended: int
    offset: int
    data: Optional[bytes]


class _File:
    """One file's content: what is surely there, and what was done since."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.since: list[_Change] = []

    def flush(self, began: int) -> None:
        """All that had ended before then is kept."""
        for change in self.since:
            if change.ended < began:
                _apply(self.kept, change)
        self.since = [change for change in self.since if change.ended >= began]

    def after_cut(self, dice: random.Random, part: float) -> bytes:
        """What may be left; each sector that was not flushed is there with the probability `part`."""
        content = bytearray(self.kept)
        for change in self.since:
            if change.data is None:
                if dice.random() < part:
                    _apply(content, change)
                continue
            start = 0
            while start < len(change.data):
                end = start + _SECTOR - (change.offset + start) % _SECTOR
                if dice.random() < part:
                    _apply(content, _Change(0, change.offset + start, change.data[start:end]))
                start = end
        return bytes(content)


def _apply(content: bytearray, change: _Change) -> None:
    if change.data is None:
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(change.data)] = change.data


class Disk:
    """The folder of the state, at one moment of the trace."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._names: dict[str, _File] = {}  # as the processes see it
        self._kept: dict[str, _File] = {}  # as it was when the folder was flushed
        self._since: list[tuple[int, str, _File | None]] = []

    def see(self, call: Call) -> None:
        """A call has happened; it is on the disk for sure only if it was a flush, and has ended."""
        if not call.path.startswith(self._folder) or call.result < 0:
            return
        if call.name in FLUSHES:
            self._flush(call)
        elif call.name == "openat":
            if "O_CREAT" in call.flags and call.path not in self._names:
                self._name(call, _File())
            assert "O_TRUNC" not in call.flags, call
        elif call.name == "unlink":
            self._name(call, None)
        elif call.name == "ftruncate":
            self._names[call.path].since.append(_Change(call.ended, call.number, None))
        elif call.name in WRITES:
            assert call.name == "pwrite64", call
            self._names[call.path].since.append(_Change(call.ended, call.number, call.data[: call.result]))
        else:
            assert call.name in _HARMLESS, f"nobody knows here what that does to a disk: {call}"

    def _name(self, call: Call, file: _File | None) -> None:
        self._since.append((call.ended, call.path, file))
        if file is None:
            del self._names[call.path]
        else:
            self._names[call.path] = file

    def _flush(self, call: Call) -> None:
        if call.path != self._folder:
            self._names[call.path].flush(call.began)
            return
        for ended, path, file in self._since:
            if ended < call.began:
                _rename(self._kept, path, file)
        self._since = [change for change in self._since if change[0] >= call.began]

    def after_cut(self, into: Path, dice: random.Random) -> None:
        """Write to a folder what may be left of this one."""
        part = dice.choice([0.0, 0.0, 1.0, 0.5, 0.1, 0.9])
        names = dict(self._kept)
        for _, path, file in self._since:
            if dice.random() < part:
                _rename(names, path, file)
        into.mkdir()
        for path, file in names.items():
            (into / Path(path).name).write_bytes(file.after_cut(dice, part))


def _rename(names: dict[str, _File], path: str, file: _File | None) -> None:
    if file is None:
        names.pop(path, None)
    else:
        names[path] = file


def disks(calls: Iterable[Call], lines: Iterable[int], folder: Path) -> Iterator[tuple[int, Disk]]:
    """The disk at each of these lines of the trace: flushes count when they have ended, all else once it has begun."""
    disk = Disk(folder)
    events = sorted(((call.ended if call.name in FLUSHES else call.began, call) for call in calls), key=itemgetter(0))
    seen = 0
    for line in sorted(lines):
        while seen < len(events) and events[seen][0] <= line:
            disk.see(events[seen][1])
            seen += 1
        yield line, disk


def may_hold(requests: Iterable[Request], line: int) -> dict[str, set[int]]:
    """By name, with which tokens it may be held at a line of the trace; 0: by nobody, -1: with any token."""
    possible: dict[str, set[int]] = {}
    for request in requests:
        if request.received > line:
            continue
        if request.verb == "UNLOCK":
            after = 0
        elif request.answered <= line:
            assert request.result[0] == "granted" and isinstance(request.result[2], int), request
            after = request.result[2]
        else:
            after = -1
        before = possible.get(request.name, {0}) if request.answered > line else set()
        possible[request.name] = before | {after}
    return possible
