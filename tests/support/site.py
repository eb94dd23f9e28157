"""The built file as its users run it: a private lock server, tools beside it, and an end to all of them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Callable, TypeVar

T = TypeVar("T")
DEADLINE = 30.0  # seconds; only reached when something is broken


def wait_for(what: Callable[[], T], description: str) -> T:
    """Ask until the answer is true."""
    deadline = time.monotonic() + DEADLINE
    while not (answer := what()):
        assert time.monotonic() < deadline, f"waited in vain: {description}"
        time.sleep(0.01)
    return answer


def state(pid: int) -> str:
    """The state of a process as /proc has it: R, S, T, Z and so on; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return state(pid) not in ("", "Z", "X")


def children(pid: int) -> list[int]:
    """The children of a process of one thread."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Tool:
    """A tool that runs; its stderr is in a file, to be read at any time."""

    def __init__(self, process: subprocess.Popen[str], stderr: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._stderr = stderr

    @property
    def err(self) -> str:
        return self._stderr.read_text(errors="surrogateescape")

    def says(self, text: str) -> None:
        """Wait until it has said that on stderr."""
        wait_for(lambda: text in self.err or self.process.poll() is not None, f"'{text}' on stderr")
        assert text in self.err

    def child(self) -> int:
        """The process that is or becomes the command; to be asked for when lockersh has asked for the lock."""
        return wait_for(lambda: [pid for pid in children(self.pid) if is_alive(pid)], "the child")[-1]

    def end(self) -> int:
        """Wait for the end: the exit code, or the signal's number as a negative one."""
        return self.process.wait(DEADLINE)

    def out(self) -> str:
        """Wait for the end; all of stdout."""
        return self.process.communicate(timeout=DEADLINE)[0]


class Site:
    """A folder, the environment that tools run in, and a lock server on a UNIX socket there if `serve` is called."""

    def __init__(self, file: Path, cache: Path) -> None:
        self.file = str(file)
        self.folder = Path(tempfile.mkdtemp(prefix="ipcl"))  # a UNIX socket's name has to be short
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("IPCLOCKER")},
            "IPCLOCKER_CACHE": str(cache),
            "IPCLOCKER_PORT": str(self.folder / "lockerd"),
            "STATE_DIRECTORY": str(self.folder / "state"),
        }
        self.server: Tool | None = None
        self._tools: list[Tool] = []
        self._started = 0
        self._bystanders: list[int] = []

    def start(self, *words: str | Path, stdout: int | IO[Any] | None = subprocess.DEVNULL, **more: Any) -> Tool:
        """Start `ipclocker WORDS`."""
        self._started += 1
        stderr = self.folder / f"stderr.{self._started}"
        more.setdefault("env", self.environment)
        more.setdefault("stdin", subprocess.DEVNULL)
        with stderr.open("w") as file:
            process = subprocess.Popen([self.file, *map(str, words)], text=True, stdout=stdout, stderr=file, **more)
        tool = Tool(process, stderr)
        self._tools.append(tool)
        return tool

    def run(self, *words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `ipclocker WORDS` to its end."""
        more.setdefault("env", self.environment)
        more.setdefault("stdin", subprocess.DEVNULL)
        more.setdefault("capture_output", True)
        more.setdefault("errors", "surrogateescape")
        return subprocess.run([self.file, *map(str, words)], text=True, timeout=DEADLINE, **more)

    def lockersh(self, *words: str | Path, lock: str = "x", **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `lockersh --lock LOCK WORDS` to its end."""
        return self.run("lockersh", "--lock", lock, *words, **more)

    def start_lockersh(self, *words: str | Path, lock: str = "x", **more: Any) -> Tool:
        """Start `lockersh --lock LOCK --verbose WORDS`."""
        return self.start("lockersh", "--lock", lock, "--verbose", *words, **more)

    def hold(self, lock: str = "x") -> Tool:
        """Hold a lock until the tool is ended; on return it is held."""
        holder = self.start_lockersh("sleep 1000", lock=lock)
        wait_for(lambda: lock in self.locks(), f"the lock {lock} to be held")
        return holder

    def serve(self, *options: str, debug: bool = False) -> Tool:
        """Start the lock server (IPCLOCKER_PORT names its socket) and wait until it is there.

        It remembers nothing beyond its end, unless the options have it otherwise.
        """
        words = ["--debug", *options] if debug else list(options)
        if not any(word.startswith("--state") for word in words):
            words += ["--state", "none"]
        self.server = self.start("lockerd", "--nofork", *words)
        wait_for(lambda: self.answers() or self.server is None or self.server.process.poll() is not None, "lockerd")
        assert self.server.process.poll() is None, self.server.err
        return self.server

    def serve_tcp(self, host: str = "127.0.0.1") -> Tool:
        """Start the lock server on a port that the system picks; IPCLOCKER_HOST and IPCLOCKER_PORT name it."""
        self.environment["IPCLOCKER_HOST"] = f"[{host}]" if ":" in host else host
        self.server = self.start("lockerd", "--nofork", "--state", "none", "--host", host, "--port", "0")
        self.server.says("listening on ")
        found = re.search(r"listening on (\S+):(\d+)", self.server.err)
        assert found is not None
        self.environment["IPCLOCKER_PORT"] = found[2]
        return self.server

    def answers(self) -> bool:
        """Whether the server answers."""
        try:
            return self.ask(b"VERSION").startswith(b"version")
        except OSError:
            return False

    def ask(self, request: bytes) -> bytes:
        """What the server answers to a request."""
        port = self.environment["IPCLOCKER_PORT"]
        family = socket.AF_UNIX if "/" in port else socket.AF_INET6 if "[" in self._host() else socket.AF_INET
        with socket.socket(family) as client:
            client.settimeout(DEADLINE)
            client.connect(port if "/" in port else (self._host().strip("[]"), int(port)))
            client.sendall(request + b"\nEOF\n")
            return b"".join(iter(lambda: client.recv(65_536), b""))

    def _host(self) -> str:
        return self.environment.get("IPCLOCKER_HOST", "")

    def free(self, *names: str) -> None:
        """Break locks: who held them was killed."""
        self.ask(f"locks {' '.join(names)}\nBREAK_LOCK".encode())

    def locks(self) -> dict[str, str]:
        """The names that are held, and by whom."""
        lines = self.ask(b"LOCK_LIST").decode().splitlines()
        return {line.split()[1]: line.split()[2] for line in lines if line.startswith("lock ")}

    def watch(self, tool: Tool) -> None:
        """A tool that was started in another way is to end with the test."""
        self._tools.append(tool)

    def ends_with(self, *pids: int) -> None:
        """These processes, which are no children of ours, are to end with the test."""
        self._bystanders += pids

    def end_tools(self) -> None:
        """End all that was started but the server, and what that has left."""
        for tool in self._tools:
            if tool is self.server:
                continue
            self._bystanders += children(tool.pid)
            tool.process.send_signal(signal.SIGCONT)
            tool.process.kill()
            tool.process.communicate()
        for pid in self._bystanders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._tools = [self.server] if self.server is not None else []
        self._bystanders = []

    def clean_up(self) -> None:
        """End all that was started."""
        self.server = None
        self.end_tools()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def new_site(file: Path, cache: Path) -> Iterator[Site]:
    """A site that ends with the block."""
    site = Site(file, cache)
    try:
        yield site
    finally:
        site.clean_up()
