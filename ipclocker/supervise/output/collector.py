"""What the programs write, read from a pipe each and put where it belongs.

A pipe is read a piece at a time, so a program that writes without end takes its turns like any other. While the
place where it goes takes nothing (a terminal that is stopped), no pipe is read: the programs wait, nobody else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any, Callable, Protocol, cast

from ...daemon.log import is_journal
from ...errors import UsageError
from ...net.loop import READ, Loop
from .line_splitter import Cutter
from .nonblocking_writer import Stream, open_file, unblocked

log = logging.getLogger(__name__)
_PIECE = 65_536  # bytes read at a time
_LAST_PIECES = 16  # read at the end of all
_LAST_WAIT = 2.0  # seconds, then, for a place that is full
_MOST_CHANNELS = 8  # that one program's earlier lives may have left open
_TIME = "%Y-%m-%d %H:%M:%S"
Take = Callable[[bytes], None]  # takes what was read; nothing, when there comes nothing more


class Sink(Protocol):
    """Where output goes."""

    @property
    def is_full(self) -> bool:
        """Whether it takes nothing now."""

    def begin(self, name: str) -> Take:
        """A program is started: what takes its output."""

    def reopen(self) -> None:
        """Files may have been moved away: go on in new ones."""

    def wait(self, deadline: float) -> None:
        """Wait until it is not full, or until the deadline (monotonic)."""

    def close(self) -> None:
        """There comes nothing more."""


class Output:
    """The pipes that programs write to."""

    def __init__(self, loop: Loop, make_place: Callable[[Loop, Callable[[], None]], Sink]) -> None:
        """`make_place` is called with the loop and with what is to be called when the place is not full any more."""
        self._loop = loop
        self._channels: dict[str, list[_Channel]] = {}
        self._reading = True
        self._place = make_place(loop, self._go_on)

    def open(self, name: str) -> int:
        """A descriptor for the output of a program that is about to be started; to be closed when it was."""
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        channels = self._channels.setdefault(name, [])
        if len(channels) >= _MOST_CHANNELS:
            channels.pop(0).close(self._loop, self._reading)
        channel = _Channel(ours, self._place.begin(name))
        channels.append(channel)
        if self._reading:
            self._watch(name, channel)
        return theirs

    def reopen(self) -> None:
        """Files may have been moved away: go on in new ones."""
        self._place.reopen()

    def close(self) -> None:
        """Take what has been written up to now, as far as it is not endless, and nothing more."""
        deadline = time.monotonic() + _LAST_WAIT
        for channel in (each for channels in self._channels.values() for each in channels):
            for _ in range(_LAST_PIECES):
                if self._place.is_full:
                    self._place.wait(deadline)
                if self._place.is_full or not channel.read():
                    break
            channel.close(self._loop, self._reading)
        self._channels.clear()
        self._place.wait(deadline)
        self._place.close()

    def _watch(self, name: str, channel: _Channel) -> None:
        self._loop.watch(cast(Any, channel.descriptor), READ, lambda events: self._read(name, channel))

    def _read(self, name: str, channel: _Channel) -> None:
        if channel.read() is None:
            self._channels[name].remove(channel)
            channel.close(self._loop, self._reading)
        if self._place.is_full and self._reading:
            self._reading = False
            for channel in (each for channels in self._channels.values() for each in channels):
                self._loop.unwatch(cast(Any, channel.descriptor))

    def _go_on(self) -> None:
        if not self._reading:
            self._reading = True
            for name, channels in self._channels.items():
                for channel in channels:
                    self._watch(name, channel)


class _Channel:
    """One pipe, and who takes what comes out of it."""

    def __init__(self, descriptor: int, take: Take) -> None:
        self.descriptor = descriptor
        self._take = take

    def read(self) -> bool | None:
        """Take a piece; False if there is none now, None if there comes nothing more."""
        try:
            data = os.read(self.descriptor, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            return None
        if data:
            self._take(data)
        return True if data else None

    def close(self, loop: Loop, watched: bool) -> None:
        if watched:
            loop.unwatch(cast(Any, self.descriptor))
        os.close(self.descriptor)
        self._take(b"")


class Lines:
    """Lines in one stream, each behind the time, unless whoever reads the stream knows it, and the program's name."""

    def __init__(self, stream: Stream, timed: bool = True) -> None:
        self._stream = stream
        self._timed = timed

    @property
    def is_full(self) -> bool:
        return self._stream.is_full

    def begin(self, name: str) -> Take:
        cutter, who = Cutter(), f"{name}: ".encode()

        def take(data: bytes) -> None:
            lines = cutter.cut(data) if data else cutter.end()
            if lines:
                before = f"{written_time()} ".encode() + who if self._timed else who
                self._stream.write(before + (b"\n" + before).join(lines) + b"\n")

        return take

    def reopen(self) -> None:
        self._stream.reopen()

    def wait(self, deadline: float) -> None:
        self._stream.wait(deadline)

    def close(self) -> None:
        self._stream.close()


class LinesInLog:
    """Lines in the log, which has the time already."""

    is_full = False

    def begin(self, name: str) -> Take:
        cutter = Cutter()

        def take(data: bytes) -> None:
            for line in cutter.cut(data) if data else cutter.end():
                log.info("%s: %s", name, line.decode("utf-8", "backslashreplace"))

        return take

    def reopen(self) -> None:
        """The log looks after itself."""

    def wait(self, deadline: float) -> None:
        """It is never full."""

    def close(self) -> None:
        """The log stays."""


class Files:
    """A file for each program, with what it writes as it is."""

    def __init__(self, loop: Loop, folder: str, drained: Callable[[], None]) -> None:
        self._loop = loop
        self._folder = Path(folder)
        self._drained = drained
        self._files: dict[str, Stream] = {}

    @property
    def is_full(self) -> bool:
        return any(file.is_full for file in self._files.values())

    def begin(self, name: str) -> Take:
        path = str(self._folder / f"{name}.log")
        if name not in self._files:
            try:
                self._files[name] = Stream(self._loop, path, lambda: open_file(path), self._drained)
            except OSError as error:
                log.error("%s: its output is lost, since %s can't be opened (%s)", name, path, error.strerror)
                return lambda data: None
        return self._files[name].write

    def reopen(self) -> None:
        for file in self._files.values():
            file.reopen()

    def wait(self, deadline: float) -> None:
        for file in self._files.values():
            file.wait(deadline)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def to_stdout(loop: Loop, drained: Callable[[], None]) -> Sink:
    """Lines on stdout."""
    return Lines(Stream(loop, "stdout", lambda: unblocked(1), drained), timed=not is_journal(1))


def to_log(loop: Loop, drained: Callable[[], None]) -> Sink:
    """Lines in the log."""
    return LinesInLog()


def to_file(path: str) -> Callable[[Loop, Callable[[], None]], Sink]:
    """Lines in a file. Raises UsageError, when it is made, if that can't be written."""

    def make(loop: Loop, drained: Callable[[], None]) -> Sink:
        try:
            return Lines(Stream(loop, path, lambda: open_file(path), drained))
        except OSError as error:
            raise UsageError(f"the output file {path} can't be written ({error.strerror}): name another") from None

    return make


def to_files(folder: str) -> Callable[[Loop, Callable[[], None]], Sink]:
    """A file for each program in a folder. Raises UsageError, when it is made, if none can be made there."""

    def make(loop: Loop, drained: Callable[[], None]) -> Sink:
        if not os.access(folder, os.W_OK | os.X_OK) or not os.path.isdir(folder):
            raise UsageError(f"no files can be made in the output folder {folder}: name another, or make it")
        return Files(loop, folder, drained)

    return make


def written_time() -> str:
    """The time for people to read, to the millisecond, as the log has it."""
    now = time.time()
    return f"{time.strftime(_TIME, time.localtime(now))}.{int(now % 1 * 1000):03d}"


def keep_log_from_blocking() -> None:
    """Write what goes to stderr only if that takes it: a terminal that is stopped must not stop this process."""
    with contextlib.suppress(OSError):
        descriptor = unblocked(2)
        os.dup2(descriptor, 2, inheritable=False)
        os.close(descriptor)
