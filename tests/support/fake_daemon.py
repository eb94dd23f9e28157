"""The fake server (fake_service.py) as seen from outside: launched, asked, and surely ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from .processes import is_alive
from .waiting import DEADLINE, wait_for


class Fake:
    """The fake server in a folder of its own, seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launched: list[subprocess.Popen[str]] = []
        self.seen: list[int] = []  # monitors that may not have started a server yet

    def launch(self, *options: str, log_file: str | None = "log", **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.support.fake_service", str(self.folder), *options]
        if log_file is not None:
            command += ["--log-file", log_file]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables}
        )
        self.launched.append(process)
        return process

    def run(self, *options: str) -> tuple[int, str]:
        """Launch and wait for the end of the launched process: exit code and stderr."""
        process = self.launch(*options)
        _, stderr = process.communicate(timeout=DEADLINE)
        return process.returncode, stderr

    def tell(self, behaviour: str, text: str = "") -> None:
        (self.folder / behaviour).write_text(text)

    def untell(self, behaviour: str) -> None:
        (self.folder / behaviour).unlink()

    def ask(self) -> int:
        """The pid of the process that serves; 0 if none does."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.folder / "socket"))
                return int(client.recv(100) or 0)
            except (FileNotFoundError, ConnectionError):
                return 0

    def server(self, *, other_than: int = 0) -> int:
        return wait_for(lambda: (pid := self.ask()) != other_than and pid, "a server")

    def pid_file(self) -> int:
        """The number in the pid file; 0 without one."""
        try:
            return int((self.folder / "pid").read_text())
        except FileNotFoundError:
            return 0

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log(), f"'{text}' in the log")

    def pids(self) -> list[int]:
        """All monitors and servers there ever were; a monitor is before its servers."""
        try:
            lines = (self.folder / "pids").read_text().split()
        except FileNotFoundError:
            lines = []
        servers, parents = lines[::2], lines[1::2]
        ours = {os.getpid(), 1, *(process.pid for process in self.launched)}
        return [pid for pid in dict.fromkeys(self.seen + [int(pid) for pid in parents + servers]) if pid not in ours]

    def wait_until_gone(self) -> None:
        for pid in self.pids():
            wait_for(lambda pid=pid: not is_alive(pid), f"the end of {pid}")  # type: ignore[misc]

    def clean_up(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
        for process in self.launched:
            process.kill()
            process.communicate()
        # A server that was forked while its monitor was being killed.
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
