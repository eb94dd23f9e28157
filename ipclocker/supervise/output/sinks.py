"""The sinks for what the programs write: stdout, the log, one file for all, or a file for each."""

from __future__ import annotations

import logging
import os
import time
from typing import Callable

from ...daemon.log import is_journal
from ...errors import UsageError
from ...net.loop import Loop
from ...net.text import encode_text
from .line_splitter import LineSplitter
from .nonblocking_writer import NonblockingWriter, open_file, unblocked

log = logging.getLogger(__name__)
_TIME = "%Y-%m-%d %H:%M:%S"
Take = Callable[[bytes], None]  # takes what was read; b"" at the end


class Sink:
    """The place where output goes, by no writer, one, or several."""

    def __init__(self) -> None:
        self._writers: dict[str, NonblockingWriter] = {}

    @property
    def is_full(self) -> bool:
        """True while it takes nothing."""
        return any(writer.is_full for writer in self._writers.values())

    def begin(self, name: str) -> Take:
        """Return what takes the output of a program that is about to be started."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Open files again by their names: they may have been moved away."""
        for writer in self._writers.values():
            writer.reopen()

    def wait(self, deadline: float) -> None:
        """Wait until it is not full, or until the deadline (monotonic seconds)."""
        for writer in self._writers.values():
            writer.wait(deadline)

    def close(self) -> None:
        """Write nothing more."""
        for writer in self._writers.values():
            writer.close()


MakeSink = Callable[[Loop, Callable[[], None]], Sink]  # from the loop, and what is called when it is not full any more


class LineSink(Sink):
    """Lines in one place, each after the time, unless its reader knows that, and the program's name."""

    def __init__(self, writer: NonblockingWriter, timed: bool = True) -> None:
        super().__init__()
        self._writers[""] = self._writer = writer
        self._timed = timed

    def begin(self, name: str) -> Take:
        splitter = LineSplitter()

        def take(data: bytes) -> None:
            lines = splitter.split(data) if data else splitter.finish()
            if lines:
                start = encode_text(f"{timestamp()} {name}: " if self._timed else f"{name}: ")
                self._writer.write(b"".join(start + line + b"\n" for line in lines))

        return take


class LogSink(Sink):
    """Lines in the log, which adds the time. It is never full."""

    def begin(self, name: str) -> Take:
        splitter = LineSplitter()

        def take(data: bytes) -> None:
            for line in splitter.split(data) if data else splitter.finish():
                log.info("%s: %s", name, line.decode("utf-8", "backslashreplace"))

        return take


class DirectorySink(Sink):
    """A file for each program in a directory, with what it writes as it is."""

    def __init__(self, loop: Loop, directory: str, drained: Callable[[], None]) -> None:
        super().__init__()
        self._loop = loop
        self._directory = directory
        self._drained = drained

    def begin(self, name: str) -> Take:
        path = os.path.join(self._directory, f"{name}.log")
        if name not in self._writers:
            try:
                self._writers[name] = NonblockingWriter(self._loop, path, lambda: open_file(path), self._drained)
            except OSError as error:
                log.error("%s: its output is lost, since %s can't be opened (%s)", name, path, error.strerror)
                return lambda data: None
        return self._writers[name].write


def to_stdout(loop: Loop, drained: Callable[[], None]) -> Sink:
    """Make a sink of lines on stdout."""
    return LineSink(NonblockingWriter(loop, "stdout", lambda: unblocked(1), drained), timed=not is_journal(1))


def to_log(loop: Loop, drained: Callable[[], None]) -> Sink:
    """Make a sink of lines in the log."""
    return LogSink()


def to_file(path: str, loop: Loop, drained: Callable[[], None]) -> Sink:
    """Make a sink of lines in a file. Raises UsageError if the file can't be written."""
    try:
        return LineSink(NonblockingWriter(loop, path, lambda: open_file(path), drained))
    except OSError as error:
        raise UsageError(f"the output file {path} can't be written ({error.strerror}): name another") from None


def to_files(directory: str, loop: Loop, drained: Callable[[], None]) -> Sink:
    """Make a sink of a file for each program. Raises UsageError if no files can be made in the directory."""
    if not os.access(directory, os.W_OK | os.X_OK) or not os.path.isdir(directory):
        raise UsageError(f"no files can be made in the output folder {directory}: name another, or make it")
    return DirectorySink(loop, directory, drained)


def timestamp() -> str:
    """Return the time for people to read, to the millisecond, as in the log."""
    now = time.time()
    return f"{time.strftime(_TIME, time.localtime(now))}.{int(now % 1 * 1000):03d}"
