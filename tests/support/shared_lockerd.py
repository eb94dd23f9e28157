"""lockerd processes that keep their locks in a real etcd: started, waited for, and surely ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import PROJECT
from .etcd import Etcd
from .servers import Peer
from .waiting import DEADLINE, wait_for

_START = "import sys; from ipclocker.__main__ import main; sys.argv[0] = 'lockerd'; main()"


def environment() -> dict[str, str]:
    """The environment, without what would set options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("IPCLOCKER")}


def run_lockerd(*words: str, timeout: float = DEADLINE) -> subprocess.CompletedProcess[str]:
    """Run lockerd in the foreground until it ends."""
    command = [sys.executable, "-c", _START, "--nofork", *words]
    return subprocess.run(command, cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=timeout)


def start_in_background(etcd: Etcd, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start one that goes to the background; its log is in `folder`, its state folder. The launcher is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log").touch()
    options = ["--etcd", ",".join(etcd.urls), "--port", "0", "--leader-ttl", "2", "--state-dir", str(folder)]
    command = [sys.executable, "-c", _START, "--log-file", str(folder / "log"), *options, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stderr=pipe, env=environment())


class SharedLockerd:
    """One lockerd on an etcd; `folder` is its state folder, and has its log, which begins again with each."""

    def __init__(
        self,
        etcd: Etcd | str,
        folder: Path,
        *options: str,
        host: str = "127.0.0.1",
        port: int = 0,
        notify: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log"
        urls = etcd if isinstance(etcd, str) else ",".join(etcd.urls)
        where = ["--host", host, "--port", str(port), "--leader-ttl", "2", "--state-dir", str(folder)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, "--nofork", "--etcd", urls, *where, *options],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment() if notify is None else {**environment(), "NOTIFY_SOCKET": notify},
            )

    def says(self, text: str) -> str:
        """Wait until it has logged that, or has ended; what it has logged."""
        wait_for(lambda: text in self.log() or self.process.poll() is not None, f"'{text}' in the log")
        assert text in self.log(), self.log()
        return self.log()

    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def serves(self) -> SharedLockerd:
        """Wait until it serves."""
        self.says("serves the lock space")
        return self

    def stands_by(self) -> SharedLockerd:
        """Wait until it stands by."""
        self.says("stands by")
        return self

    @property
    def address(self) -> str:
        """Where it serves, or would."""
        return self.says("lockerd 1").split(", on ")[-1].split(";")[0]

    def ask(self, text: str) -> list[str]:
        """One answer over a connection of its own."""
        peer = Peer(self.address)
        try:
            return peer.ask(text)
        finally:
            peer.close()

    def ended(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        return self.process.wait(DEADLINE)

    def terminate(self) -> int:
        """End it in good order; its exit code."""
        self.process.terminate()
        return self.process.wait(DEADLINE)

    def __enter__(self) -> SharedLockerd:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
