"""What a worker tells its manager: that it is up, by when its request has to be done, and how many it has served.

The first goes through a pipe, since the manager waits for it. The others are two numbers in a piece of memory that
both have: telling them costs no system call, and the manager looks when it wants to know; only that it has to look
goes through the pipe. A worker that is a program of its own finds the two descriptors by the environment, and one of
another kind leaves them alone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import MutableMapping
from math import inf

VARIABLE = "IPCLOCKER_WORKER"  # the two descriptors, each as number/inode, with a colon between
READY = b"ready"
TIMED = b"timed"  # there are requests with a deadline
ASKED = b"asked"  # it ends since a signal has told it to
_BOARD = struct.Struct("dQ")  # the deadline (seconds, monotonic; infinite outside of requests), requests served


class ManagerEnd:
    """The manager's end; `pipe` is readable when the worker has said something, or has ended."""

    def __init__(self) -> None:
        """Raises OSError if there are no more descriptors."""
        self.pipe, write = os.pipe()
        os.set_blocking(self.pipe, False)
        board = -1
        try:
            board = _new_board()
            self._memory = _map(board)
        except OSError:
            for descriptor in (self.pipe, write, board):
                if descriptor >= 0:
                    os.close(descriptor)
            raise
        self.worker = WorkerEnd(write, board)

    def hear(self) -> list[bytes]:
        """What the worker has said since the last time: READY, TIMED, ASKED; nothing if the pipe was closed."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.pipe, 100).split()
        return []

    @property
    def deadline(self) -> float:
        """By when the worker's request has to be done; infinite if it does not mind or has none."""
        return float(_BOARD.unpack_from(self._memory)[0])

    @property
    def served(self) -> int:
        """How many requests the worker has done."""
        return int(_BOARD.unpack_from(self._memory)[1])

    def close(self) -> None:
        """Give back the descriptors: the worker has ended, or it was never started."""
        os.close(self.pipe)
        self._memory.close()


class WorkerEnd:
    """The worker's end. The manager makes it, and closes its own copy when the worker was started."""

    def __init__(self, pipe: int, board: int) -> None:
        self._descriptors = (pipe, board)
        self._memory: mmap.mmap | None = None
        self._is_timed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> WorkerEnd | None:
        """The end that this program was started with; None if its parent is no manager. Found once."""
        words = environment.pop(VARIABLE, "").split(":")
        try:
            pipe, board = (int(word.partition("/")[0]) for word in words)
            if [_named(pipe), _named(board)] != words:
                return None  # whoever was started with them has closed them, and the numbers are other files' now
            end = cls(pipe, board)
            end.take()
        except (ValueError, OSError):
            return None
        return end

    def leave_to(self, environment: MutableMapping[str, str]) -> None:
        """Leave the end to the program that this process is about to execute in this environment."""
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, True)
        environment[VARIABLE] = ":".join(map(_named, self._descriptors))

    def take(self) -> None:
        """This process is the worker. Raises OSError."""
        pipe, board = self._descriptors
        os.set_inheritable(pipe, False)
        self._memory = _map(board)
        os.close(board)

    def ready(self) -> None:
        """Say that the worker is up."""
        self._say(READY)

    def ends_as_asked(self) -> None:
        """Say that the worker ends since a signal has told it to."""
        self._say(ASKED)

    def begin(self, deadline: float) -> None:
        """A request has begun and has to be done by then (monotonic)."""
        assert self._memory is not None
        _BOARD.pack_into(self._memory, 0, deadline, _BOARD.unpack_from(self._memory)[1])
        if not self._is_timed:
            self._is_timed = True
            self._say(TIMED)

    def end(self, served: int) -> None:
        """The request is done, as so many were now."""
        assert self._memory is not None
        _BOARD.pack_into(self._memory, 0, inf, served)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # the manager is gone; what that means is not for here
            os.write(self._descriptors[0], word + b"\n")

    def close(self) -> None:
        """Close the manager's copy."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def _new_board() -> int:
    if hasattr(os, "memfd_create"):
        board = os.memfd_create("ipclocker-worker")
    else:
        with tempfile.TemporaryFile() as file:
            board = os.dup(file.fileno())
    os.write(board, _BOARD.pack(inf, 0))
    return board


def _named(descriptor: int) -> str:
    return f"{descriptor}/{os.fstat(descriptor).st_ino}"


def _map(board: int) -> mmap.mmap:
    return mmap.mmap(board, _BOARD.size)
