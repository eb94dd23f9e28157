"""The servers of example_server.py and .pl, as processes: started, asked, looked at, and surely ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from ..support import PROJECT
from ..support.processes import is_alive, living_children, state
from ..support.waiting import DEADLINE, wait_for

HERE = Path(__file__).parent
PERL_MODULE = subprocess.run(["perl", "-MFCGI::ProcManager", "-e", "1"], capture_output=True).returncode == 0


class Asked:
    """A request that is under way in a thread; `answer` is there at its end, empty if there was none.

    One that is `held` lasts until `pid` is called, however slow the host is.
    """

    def __init__(self, path: str, seconds: float, held: bool = False) -> None:
        self.answer = b""
        self.sent = threading.Event()
        self._path = path
        self._seconds = seconds
        self._is_held = held
        self._release = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        assert self.sent.wait(DEADLINE)

    def _ask(self) -> None:
        try:
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.settimeout(3 * DEADLINE)
                sock.connect(self._path)
                if self._is_held:
                    self.sent.set()
                    self._release.wait()
                sock.sendall(b"%f\n" % self._seconds)
                self.sent.set()
                while chunk := sock.recv(100):
                    self.answer += chunk
        finally:
            self.sent.set()

    def pid(self) -> int:
        """Wait for the answer; who gave it, 0 if nobody did."""
        self._release.set()
        self._thread.join(3 * DEADLINE)
        assert not self._thread.is_alive()
        return int(self.answer or 0)


class Server:
    """A server in a folder of its own."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], path: str | None) -> None:
        self.path = path or str(folder / "socket")
        self._err = folder / "err"
        with self._err.open("w") as file:
            self.process = subprocess.Popen(
                [word.replace("SOCKET", self.path) for word in command],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, **environment},
            )
        self.pid = self.process.pid
        self._seen: set[int] = set()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has said that on stderr."""
        wait_for(lambda: len(re.findall(text, self.err)) >= times, f"'{text}' in {self.err}")

    def workers(self, number: int | None = None) -> list[int]:
        """Its workers; those that are there when there are so many of them, and all are ready."""

        def are_ready() -> bool:
            found = living_children(self.pid)
            said = [rf"server (pid {pid}): initialized" in self.err and state(pid) == "S" for pid in found]
            return len(found) == number and all(said)

        if number is not None:
            wait_for(are_ready, f"{number} workers; {self.err}")
        found = living_children(self.pid)
        self._seen.update(found)
        return found

    def ask(self, seconds: float = 0.0) -> int:
        """One request; the worker that has answered, 0 if none has."""
        return Asked(self.path, seconds).pid()

    def ask_in_background(self, seconds: float, held: bool = False) -> Asked:
        """One request; on return it has been accepted."""
        before = [pid for pid in self.workers() if _connections(pid) == 0]
        asked = Asked(self.path, seconds, held)
        wait_for(lambda: any(_connections(pid) and state(pid) == "S" for pid in before), "a worker to accept")
        return asked

    def hold_request(self) -> Asked:
        """One request that lasts until its `pid` is asked for; on return it has been accepted."""
        return self.ask_in_background(0.0, held=True)

    def send(self, number: int, pid: int | None = None) -> None:
        """Send a signal to the manager, or to a worker."""
        os.kill(self.pid if pid is None else pid, number)

    def end(self) -> int:
        """Wait for the manager's end; its exit code."""
        return self.process.wait(2 * DEADLINE)

    def clean_up(self) -> None:
        """Kill what is left."""
        self.workers()
        self.process.kill()
        self.process.wait()
        for pid in self._seen:
            with contextlib.suppress(ProcessLookupError):
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)


def _is_listened_on(path: str) -> bool:
    """Look up without connecting if somebody listens on a UNIX socket."""
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return any(words[-1] == path and words[3] == "00010000" for words in lines)


def _connections(pid: int) -> int:
    """The number of sockets of a process beyond those that it listens on or was born with."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return sum(os.readlink(file).startswith("socket:") for file in folder.iterdir()) - 1
    except OSError:
        return 0


@contextlib.contextmanager
def server(kind: str, environment: dict[str, str] | None = None, **parameters: object) -> Iterator[Server]:
    """The "python" or the "perl" server, or another Python program of this folder."""
    words = [f"{key}={int(value) if isinstance(value, bool) else value}" for key, value in parameters.items()]
    if kind == "perl":
        words = [word for word in words if not word.startswith(("rolling=", "gap="))]
        command = ["perl", str(HERE / "example_server.pl"), "SOCKET", *words]
    else:
        module = "example_server" if kind == "python" else kind
        command = [sys.executable, "-m", f"{__package__}.{module}", "SOCKET", *words]
    with started(command, environment) as found:
        yield found


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str] | None = None, path: str | None = None) -> Iterator[Server]:
    """Any server; the word SOCKET stands for its socket's name."""
    with tempfile.TemporaryDirectory(prefix="ipcl") as folder:  # a UNIX socket's name has to be short
        found = Server(command, Path(folder), environment or {}, path)
        try:
            wait_for(lambda: _is_listened_on(found.path) or found.process.poll() is not None, "the socket")
            yield found
        finally:
            found.clean_up()
