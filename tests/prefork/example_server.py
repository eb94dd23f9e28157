"""A server with workers for the tests: python -m tests.prefork.example_server SOCKET [KEY=VALUE...]

SOCKET is the name of a UNIX socket, or - for the one that is descriptor 0. A request is a line with a number of
seconds; it takes that long, and its answer is a line with the worker's pid. The keys are ProcManager's parameters, and
`gap`: seconds between the acceptance of a connection and pm_pre_dispatch.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from typing import Any

from ipclocker import ProcManager


def work(seconds: float) -> None:
    """Take that long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


def serve(manager: ProcManager, listener: socket.socket, gap: float = 0.0) -> None:
    """Manage, and handle requests in the workers."""
    manager.pm_manage()
    while True:
        connection, _ = listener.accept()
        work(gap)
        manager.pm_pre_dispatch()
        with connection, connection.makefile("rb") as file:
            work(float(file.readline() or 0))
            connection.sendall(b"%d\n" % os.getpid())
        manager.pm_post_dispatch()


def main() -> None:
    """Serve for ever."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path, *words = sys.argv[1:]
    parameters: dict[str, Any] = dict(word.split("=", 1) for word in words)
    for key in ("no_signals", "rolling"):
        if key in parameters:
            parameters[key] = parameters[key] == "1"
    gap = float(parameters.pop("gap", 0))
    if path == "-":
        listener = socket.socket(fileno=0)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1024)
    serve(ProcManager(**parameters), listener, gap)


if __name__ == "__main__":
    main()
