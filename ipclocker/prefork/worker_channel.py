"""The channel from a worker to its manager: it is up; when its request has to be done; how many it has served.

The first goes through a pipe, since the manager waits for it. The others are two numbers on a *scoreboard*, a piece of
memory that both have: writing them costs no system call, and the manager reads them when it wants to know; only that
it has to read them goes through the pipe. A worker that is a program of its own finds the two descriptors by the
environment, and a program of another kind leaves them alone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
from collections.abc import MutableMapping
from math import inf

from ..process.unnamed_file import unnamed_file

VARIABLE = "IPCLOCKER_WORKER"  # the two descriptors, each as number/inode, with a colon between
READY = b"ready"
TIMED = b"timed"  # there are requests with a deadline
ASKED = b"asked"  # it ends since a signal has told it to stop
# The deadline in monotonic seconds, infinity outside of requests; the number of requests served.
_SCOREBOARD = struct.Struct("dQ")


class ManagerEnd:
    """The manager's end; the descriptor `pipe` is readable when the worker has sent something, or has ended."""

    def __init__(self) -> None:
        """Make both ends. Raises OSError if there are no more descriptors."""
        self.pipe, write = os.pipe()
        os.set_blocking(self.pipe, False)
        scoreboard = -1
        try:
            scoreboard = _new_scoreboard()
            self._memory = _map(scoreboard)
        except OSError:
            for descriptor in (self.pipe, write, scoreboard):
                if descriptor >= 0:
                    os.close(descriptor)
            raise
        self.worker = WorkerEnd(write, scoreboard)

    def read(self) -> list[bytes]:
        """Return what the worker has sent since the last call: READY, TIMED, ASKED; nothing if the pipe was closed."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.pipe, 100).split()
        return []

    @property
    def deadline(self) -> float:
        """The time at which the worker's request has to be done (monotonic seconds); infinity without one."""
        return float(_SCOREBOARD.unpack_from(self._memory)[0])

    @property
    def served(self) -> int:
        """The number of requests that the worker has done."""
        return int(_SCOREBOARD.unpack_from(self._memory)[1])

    def close(self) -> None:
        """Close the descriptors: the worker has ended, or it was never started."""
        os.close(self.pipe)
        self._memory.close()


class WorkerEnd:
    """The worker's end. The manager makes it, and closes its copy when the worker was started.

    What can't be sent, since the manager is gone, is not an error.
    """

    def __init__(self, pipe: int, scoreboard: int) -> None:
        self._descriptors = (pipe, scoreboard)
        self._memory: mmap.mmap | None = None
        self._is_timed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> WorkerEnd | None:
        """Return the end that this program was started with; None if its parent is not a manager.

        It is taken from the environment: a second call finds none.
        """
        words = environment.pop(VARIABLE, "").split(":")
        try:
            pipe, scoreboard = (int(word.partition("/")[0]) for word in words)
            if [_descriptor_name(pipe), _descriptor_name(scoreboard)] != words:
                return None  # a program before this one has closed them, and the numbers are other files' now
            end = cls(pipe, scoreboard)
            end.take()
        except (ValueError, OSError):
            return None
        return end

    def pass_on(self, environment: MutableMapping[str, str]) -> None:
        """Pass the end on to the program that this process is about to execute in this environment."""
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, True)
        environment[VARIABLE] = ":".join(map(_descriptor_name, self._descriptors))

    def take(self) -> None:
        """Use the end in this process, which is the worker. Raises OSError."""
        pipe, scoreboard = self._descriptors
        os.set_inheritable(pipe, False)
        self._memory = _map(scoreboard)
        os.close(scoreboard)

    def ready(self) -> None:
        """Send that the worker is up."""
        self._send(READY)

    def ends_as_asked(self) -> None:
        """Send that the worker ends since a signal has told it to."""
        self._send(ASKED)

    def begin(self, deadline: float) -> None:
        """Note that a request has begun, which has to be done at the deadline (monotonic seconds)."""
        assert self._memory is not None
        _SCOREBOARD.pack_into(self._memory, 0, deadline, _SCOREBOARD.unpack_from(self._memory)[1])
        if not self._is_timed:
            self._is_timed = True
            self._send(TIMED)

    def end(self, served: int) -> None:
        """Note that the request is done; `served`: how many are by now."""
        assert self._memory is not None
        _SCOREBOARD.pack_into(self._memory, 0, inf, served)

    def _send(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # the manager is gone
            os.write(self._descriptors[0], word + b"\n")

    def close(self) -> None:
        """Close the manager's copy."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def _new_scoreboard() -> int:
    scoreboard = unnamed_file("ipclocker-worker")
    os.write(scoreboard, _SCOREBOARD.pack(inf, 0))
    return scoreboard


def _descriptor_name(descriptor: int) -> str:
    return f"{descriptor}/{os.fstat(descriptor).st_ino}"


def _map(scoreboard: int) -> mmap.mmap:
    return mmap.mmap(scoreboard, _SCOREBOARD.size)


def fork_with_channel() -> tuple[ManagerEnd, int]:
    """Return a channel, and the pid of the process at its other end, 0 in that process. Raises OSError."""
    channel = ManagerEnd()
    try:
        return channel, os.fork()
    except OSError:
        channel.worker.close()
        channel.close()
        raise


def flush_output() -> None:
    """Write what is buffered: a process that is forked would write it again."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
