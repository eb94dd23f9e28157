"""SIGHUP to a server: before the program of the file as it is now takes its place, a trial shows whether that can.

The trial is a child process that is started from the file with the same command line. It makes the server, on a socket
that nobody knows and with a copy of the state, closes it and says that it could. Meanwhile the old server serves, and
goes on if the trial fails for whatever reason: a damaged file, an option that is not known any more, a state that can't
be read. So two servers never have the same sockets or the same state.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from typing import Callable, Optional

from ..net.loop import READ, Loop
from .inheritance import TRIAL, Inheritance, Takeover
from .loop_server import LoopServer, ServerFactory
from .reexec import Program

CAN_SERVE = "it can serve"  # the last line of a trial that went well
WITHIN = 60.0  # seconds for a trial: the first run of a file on a host compiles it
_LONGEST = 65_536  # bytes of output that are kept, the last ones
_BESIDE = ("", "-wal", "-shm", "-journal")  # endings of a state file's copy, and of what SQLite keeps beside it

Done = Callable[[Optional[str]], None]  # called with None if it went well, else with the reason
log = logging.getLogger(__name__)


class Trial:
    """A trial that runs; `done` is called at its end, unless it was closed before. Raises OSError, ImportError."""

    def __init__(self, loop: Loop, program: Program, takeover: Takeover, done: Done) -> None:
        import subprocess  # only here, for a server starts without it

        self._loop = loop
        self._done = done
        self._output = b""
        self._process = subprocess.Popen(
            program.words,
            cwd=program.folder,
            env=program.environment(takeover),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        loop.watch(self._pipe, READ, self._read)
        self._timer = loop.call_at(loop.now + WITHIN, self._too_late)

    def close(self) -> None:
        """End it."""
        self._timer.cancel()
        self._loop.unwatch(self._pipe)
        self._process.kill()
        with self._process:  # closes the pipe and waits
            pass

    def _read(self, events: int) -> None:
        try:
            data = os.read(self._pipe, _LONGEST)
        except BlockingIOError:
            return
        self._output = (self._output + data)[-_LONGEST:]
        if not data:
            lines = self._output.decode("utf-8", "replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it ended without a word")
            self._end(None if last == CAN_SERVE else last)

    def _too_late(self) -> None:
        self._end(f"it did not say within {WITHIN:g} s that it can serve")

    def _end(self, problem: str | None) -> None:
        self.close()
        self._done(problem)


class Upgrade:
    """What SIGHUP asks of a server: a trial, and if that goes well its restart."""

    def __init__(self, service: LoopServer, program: Program, name: str) -> None:
        self._service = service
        self._program = program
        self._name = name
        self._copy: str | None = None  # of the state
        self._trial: Trial | None = None
        self._under_way = False
        self._again = False

    def begin(self) -> None:
        """Begin, or begin again when the trial that runs is over: the file may have been replaced since."""
        self._again = self._under_way
        if self._under_way:
            return
        self._under_way = True
        state = self._service.state_file
        if state is None:
            self._try(None)
            return
        self._copy = f"{state}.trial"
        self._service.copy_state(self._copy, self._try)

    def close(self) -> None:
        """End what is under way; call it before the server is closed, and `remove_copy` then."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None
        self._under_way = True  # for ever: nothing is begun any more

    def _try(self, problem: str | None) -> None:
        if problem is not None:
            self._tried(problem)
            return
        try:
            takeover = Takeover(TRIAL, Inheritance(state=self._copy))
            self._trial = Trial(self._service.loop, self._program, takeover, self._tried)
        except (OSError, ImportError) as error:
            self._tried(str(error))

    def _tried(self, problem: str | None) -> None:
        self._trial = None
        self._under_way = False
        if problem is not None:
            if self._copy is not None:
                problem = problem.replace(self._copy, f"{self._service.state_file}")
            log.error("%s can't take over, and %s serves on: %s", self._program.file, self._program.describe(), problem)
        self.remove_copy()
        if self._again:
            self.begin()
        elif problem is None:
            log.info("%s is started again, from %s", self._name, self._program.file)
            self._service.restart()

    def remove_copy(self) -> None:
        """Remove the copy of the state, if there is one."""
        if self._copy is not None:
            for ending in _BESIDE:
                with suppress(OSError):
                    os.unlink(self._copy + ending)
            self._copy = None


def prove(start: ServerFactory | None, inheritance: Inheritance, kind: socket.SocketKind) -> None:
    """Be the trial: make the server on a socket of this kind, and close it. Raises what `start` raises.

    Without `start` it is enough to have come that far.
    """
    if start is not None:
        served, other = socket.socketpair(socket.AF_UNIX, kind)
        with other, start(inheritance._replace(sockets=(served,))) as service:
            service.check()
    print(CAN_SERVE, flush=True)
