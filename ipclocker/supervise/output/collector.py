"""Reads what the programs write, from a pipe for each, and puts it where it belongs.

A pipe is read a piece at a time: so a program that writes without end does not keep the others waiting. While the sink
is full (a terminal that is stopped), no pipe is read: the programs wait, nobody else does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from ...net.loop import READ, Loop
from .sinks import MakeSink, Take

_PIECE = 65_536  # bytes read at a time: all that a pipe holds on Linux (pipe(7))
_LAST_PIECES = 16  # of each pipe, read at the end of all: a program that writes on does not hold up the end
_LAST_WAIT = 2.0  # seconds, then, for a sink that is full
_MOST_PIPES = 8  # of one program: what an earlier run has left behind may hold its pipe open for ever


class OutputCollector:
    """The pipes that programs write to."""

    def __init__(self, loop: Loop, make_sink: MakeSink) -> None:
        """`make_sink` is called with the loop, and with what is to be called when the sink is not full any more.

        Raises what `make_sink` raises.
        """
        self._loop = loop
        self._pipes: dict[str, list[_Pipe]] = {}
        self._reading = True
        self._sink = make_sink(loop, self._resume)

    def open(self, name: str) -> int:
        """Return a descriptor for the output of a program that is about to be started; the caller closes it then.

        Raises OSError if there are no more descriptors.
        """
        receiver, sender = os.pipe()
        os.set_blocking(receiver, False)
        pipes = self._pipes.setdefault(name, [])
        if len(pipes) >= _MOST_PIPES:
            self._close(pipes.pop(0))
        pipe = _Pipe(receiver, self._sink.begin(name))
        pipes.append(pipe)
        if self._reading:
            self._watch(name, pipe)
        return sender

    def reopen(self) -> None:
        """Open files again by their names: they may have been moved away."""
        self._sink.reopen()

    def close(self) -> None:
        """Take what has been written up to now, as far as it is not endless. Blocks for 2 seconds at most."""
        deadline = time.monotonic() + _LAST_WAIT
        for _, pipe in self._all():
            for _ in range(_LAST_PIECES):
                if self._sink.is_full:
                    self._sink.wait(deadline)
                if self._sink.is_full or not pipe.read():
                    break
            self._close(pipe)
        self._pipes.clear()
        self._sink.wait(deadline)
        self._sink.close()

    def _all(self) -> Iterator[tuple[str, _Pipe]]:
        return ((name, pipe) for name, pipes in self._pipes.items() for pipe in pipes)

    def _watch(self, name: str, pipe: _Pipe) -> None:
        self._loop.watch(pipe.descriptor, READ, lambda events: self._read(name, pipe))

    def _read(self, name: str, pipe: _Pipe) -> None:
        if pipe.read() is None:
            self._pipes[name].remove(pipe)
            self._close(pipe)
        if self._sink.is_full and self._reading:
            self._reading = False
            for _, each in self._all():
                self._loop.unwatch(each.descriptor)

    def _resume(self) -> None:
        if not self._reading:
            self._reading = True
            for name, pipe in self._all():
                self._watch(name, pipe)

    def _close(self, pipe: _Pipe) -> None:
        if self._reading:
            self._loop.unwatch(pipe.descriptor)
        pipe.close()


class _Pipe:
    """One pipe, and what takes the bytes that come out of it."""

    def __init__(self, descriptor: int, take: Take) -> None:
        self.descriptor = descriptor
        self._take = take

    def read(self) -> bool | None:
        """Take a piece; False if there is none now, None at the end."""
        try:
            data = os.read(self.descriptor, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            return None
        if data:
            self._take(data)
        return True if data else None

    def close(self) -> None:
        os.close(self.descriptor)
        self._take(b"")
