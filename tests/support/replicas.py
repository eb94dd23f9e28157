"""Several lockerd of one lock space, on a real etcd."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import PROJECT
from .etcd import Etcd
from .servers import Served
from .waiting import DEADLINE, wait_for

TTL = 2  # seconds; the shortest
_SERVES, _STANDS_BY = r"INFO: serves the lock space", r"INFO: stands by: "


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody has at this moment, below those that connections get."""
    import random

    while True:
        port = random.randint(12_000, 31_000)
        with socket.socket() as sock:
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port


class Replica(Served):
    """A lockerd of its own process, which serves or stands by when it is made, unless it is not to be waited for."""

    def __init__(
        self, folder: Path, urls: Sequence[str], *options: str, before: str = "", port: int = 0, waits: bool = True
    ) -> None:
        super().__init__()
        self.addresses = [f"127.0.0.1:{port or free_port()}"]
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / f"lockerd-{self.port}-{len(list(folder.iterdir()))}.log"
        start = f"import sys; {before or 'pass'}; from ipclocker.__main__ import main; sys.argv[0] = 'lockerd'; main()"
        words = ["--nofork", "--port", str(self.port), "--host", "127.0.0.1", "--etcd", ",".join(urls)]
        if "--state-dir" not in options:  # what it notes of this etcd is nothing to a later test's, nor to this host
            words += ["--state-dir", str(folder / f"state-{self.port}")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IPCLOCKER")}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", start, *words, "--leader-ttl", str(TTL), *options],
                cwd=PROJECT,
                stderr=log,
                env={**environment, "STATE_DIRECTORY": str(self.log_file.with_suffix(".state"))},
            )
        if waits:
            wait_for(lambda: self.has_logged(f"{_SERVES}|{_STANDS_BY}") or self.process.poll() is not None)
            assert self.process.poll() is None, self.log()

    def log(self) -> str:
        """All that it has logged so far."""
        return self.log_file.read_text()

    def has_logged(self, pattern: str) -> bool:
        return re.search(pattern, self.log()) is not None

    def serves(self) -> bool:
        """Whether it serves now, which a client sees by being let in."""
        with socket.socket() as sock:
            sock.settimeout(DEADLINE)
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def end(self) -> None:
        self.kill()


class Replicas:
    """So many lockerd on one etcd; all are ended at the end of a `with`."""

    def __init__(self, etcd: Etcd, folder: Path, count: int = 2, *options: str, **more: Any) -> None:
        self.etcd = etcd
        self._folder = folder
        self._options = options
        self._more = more
        self.all: list[Replica] = []
        for _ in range(count):
            self.add()

    def add(self, port: int = 0) -> Replica:
        replica = Replica(self._folder, self.etcd.urls, *self._options, port=port, **self._more)
        self.all.append(replica)
        return replica

    @property
    def hosts(self) -> list[str]:
        """The addresses of all, as clients list them."""
        return [replica.address for replica in self.all]

    def leader(self, other_than: Replica | None = None) -> Replica:
        """The one that serves; it is waited for."""

        def find() -> Replica | None:
            running = [replica for replica in self.all if replica is not other_than and replica.process.poll() is None]
            return next((replica for replica in running if replica.serves()), None)

        found = wait_for(find, "a lockerd that serves")
        assert found is not None
        return found

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *_: object) -> None:
        for replica in self.all:
            replica.__exit__()
