"""What fastcgi_app.php does, in Python: ProcManager for the processes, flup for the records of FastCGI.

N_PROCESSES says how many workers it manages itself; without it, it is a worker of `ipclocker prefork`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable
from typing import Any, Callable
from urllib.parse import parse_qs

from flup.server.fcgi_base import Connection
from flup.server.fcgi_single import WSGIServer

from ipclocker import ProcManager


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Any WSGI application."""
    query = parse_qs(environ["QUERY_STRING"])
    time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"pid {os.getpid()} n {query['n'][0]} body {len(body)} {'x' * 2000}\n".encode()]


def main() -> None:
    """Handle requests for ever."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server = WSGIServer(application)
    listener = socket.socket(fileno=0)
    manager = ProcManager(n_processes=int(os.environ.get("N_PROCESSES", "0")))
    manager.pm_manage()
    while True:
        connection, address = listener.accept()
        manager.pm_pre_dispatch()
        Connection(connection, address, server, None).run()
        manager.pm_post_dispatch()


if __name__ == "__main__":
    main()
