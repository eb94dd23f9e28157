"""Processes that are started with sockets, as systemd does it: descriptors from 3 on, and LISTEN_PID their own pid."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import PROJECT

# Words: the value of LISTEN_FDS, that of LISTEN_PID ("own" or a number), the descriptors, "--", and a command.
_LAUNCH = """
import fcntl, os, sys
end = sys.argv.index("--")
count, pid, *numbers = sys.argv[1:end]
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 100) for number in numbers]
for target, number in enumerate(high, 3):
    os.dup2(number, target)
os.environ.update(LISTEN_FDS=count, LISTEN_PID=str(os.getpid()) if pid == "own" else pid)
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
"""
_TOOL = "import sys; from ipclocker.__main__ import main; sys.argv = sys.argv[1:]; main()"


class Activated:
    """A tool that runs with sockets it was started with."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def says(self, text: str) -> str:
        """The next line on stderr that has this text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"it never said '{text}': {self.lines}")

    def addresses(self) -> list[str]:
        """The addresses that it says it listens on."""
        found = re.search(r"listening on ([^;\n]*)", self.says("listening on"))
        assert found is not None
        return found[1].split(", ")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def launch(
    words: Sequence[str],
    sockets: Sequence[Any],
    count: str | None = None,
    pid: str = "own",
    names: str | None = None,
) -> subprocess.Popen[str]:
    """Start a tool with these sockets (or files, or descriptors)."""
    numbers = [sock if isinstance(sock, int) else sock.fileno() for sock in sockets]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("IPCLOCKER", "LISTEN_"))}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    launcher = [sys.executable, "-c", _LAUNCH, str(len(numbers)) if count is None else count, pid, *map(str, numbers)]
    tool = [sys.executable, "-c", _TOOL, *words]
    return subprocess.Popen(
        [*launcher, "--", *tool], pass_fds=numbers, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def activated(words: Sequence[str], sockets: Sequence[socket.socket], **more: str) -> Iterator[Activated]:
    """A tool that runs with these sockets, until the end of the block."""
    with launch(words, sockets, **more) as process:
        try:
            yield Activated(process)
        finally:
            if process.poll() is None:
                process.kill()


def refused(words: Sequence[str], sockets: Sequence[Any], **more: str) -> str:
    """The one line that a tool says which does not take these sockets; it ends with 64."""
    with launch(words, sockets, **more) as process:
        try:
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 64, stderr
    assert stderr.count("\n") == 1
    return stderr
