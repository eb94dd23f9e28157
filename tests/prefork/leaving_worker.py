"""A worker that leaves processes behind: python -m tests.prefork.leaving_worker NOTES [deaf] [KEY=VALUE...]

It serves on its descriptor 0 as example_server.py does, and starts a process in a group of its own, one in a session
of its own, one that is a daemon, and the programs `tail -f NOTES`, a daemon without an environment, and
`tail -n 1 -f NOTES`, one with it. The first three write their pids to NOTES. All have the socket. `deaf`: they ignore
SIGTERM. The keys are ProcManager's parameters: with n_processes it is a manager whose workers do that.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from ipclocker import ProcManager

from .example_server import serve


def leave(notes: str, deaf: bool) -> None:
    """Start the processes, and return when all have written their pids."""
    ready, writer = os.pipe()
    for where in (os.setpgrp, os.setsid, _become_daemon):
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN if deaf else signal.SIG_DFL)
            where()
            with open(notes, "a") as file:
                file.write(f"{os.getpid()}\n")
            os.write(writer, b".")
            while True:
                time.sleep(1000)
    trap = 'trap "" TERM; ' if deaf else ""
    subprocess.run(["sh", "-c", f"{trap}env -i setsid -f tail -f {notes}; setsid -f tail -n 1 -f {notes}"], check=True)
    for _ in range(3):
        os.read(ready, 1)


def _become_daemon() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()


class Leaving(ProcManager):
    """Its workers leave processes behind."""

    notes = ""
    deaf = False

    def handling_init(self) -> None:
        """Leave them."""
        super().handling_init()
        leave(self.notes, self.deaf)


def main() -> None:
    """Serve for ever."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    notes, *words = sys.argv[1:]
    Leaving.notes, Leaving.deaf = notes, "deaf" in words
    parameters: dict[str, Any] = {"n_processes": 0, **dict(word.split("=") for word in words if "=" in word)}
    serve(Leaving(**parameters), socket.socket(fileno=0))


if __name__ == "__main__":
    main()
