"""A web server before FastCGI programs: nginx on a UNIX socket, and clients that check every answer."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..support.waiting import DEADLINE, wait_for

HERE = Path(__file__).parent
_CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
error_log {folder}/nginx.log;
pid {folder}/nginx.pid;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    server {{
        listen unix:{folder}/web;
        location / {{
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME {script};
            fastcgi_pass unix:{folder}/fcgi;
        }}
    }}
}}
"""


def missing(*programs: str) -> list[str]:
    """Which of these programs this host has not."""
    return [program for program in programs if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None]


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Path]:
    """Serve the programs that listen on `fcgi` in the folder; the name of the web server's socket."""
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, user=user, script=(HERE / "fastcgi_app.php").resolve())
    )
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert program is not None
    with subprocess.Popen([program, "-p", str(folder), "-c", str(configuration)]) as process:
        try:
            wait_for_socket(folder / "web")
            yield folder / "web"
        finally:
            process.terminate()


def wait_for_socket(path: Path) -> None:
    """Wait until somebody listens there."""

    def is_listened_on() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(path)) == 0

    wait_for(is_listened_on, f"somebody to listen on {path}")


class _Request:
    def __init__(self, number: int, body: int) -> None:
        self.number = number
        self.body = body
        self.heard = b""

    def is_answered(self) -> bool:
        head, end, body = self.heard.partition(b"\r\n\r\n")
        if b"chunked" in head:
            return body.endswith(b"0\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return bool(end) and bool(length) and len(body) >= int(length)

    def is_right(self) -> bool:
        wanted = b" n %d body %d %b\n" % (self.number, self.body, b"x" * 2000)
        return self.heard.startswith(b"HTTP/1.1 200 ") and wanted in self.heard


class Load:
    """A number of clients, each of which asks again when it was answered; every tenth request is a POST.

    `failures` has the first bytes of what was no right answer.
    """

    def __init__(self, web: Path, clients: int = 8, slow_every: int = 0) -> None:
        self.done = 0
        self.failures: list[bytes] = []
        self._web = str(web)
        self._clients = clients
        self._slow_every = slow_every  # every so many requests one takes 50 ms
        self._asked = 0
        self._total = 0
        self._selector = selectors.DefaultSelector()

    def run(self, total: int) -> Iterator[int]:
        """Ask so many times; yields the number of answers whenever there are more."""
        self._total = self._asked + total
        for _ in range(self._clients):
            self._ask(self._connect())
        while self._selector.get_map():
            ready = self._selector.select(DEADLINE)
            assert ready, f"no more answers after {self.done}"
            for key, _ in ready:
                self._hear(key)
            yield self.done

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._web)
        return sock

    def _ask(self, sock: socket.socket) -> None:
        if self._asked == self._total:
            sock.close()
            return
        self._asked += 1
        number = self._asked
        slow = b"&ms=50" if self._slow_every and number % self._slow_every == 0 else b""
        body = b"b" * 5000 if number % 10 == 0 else b""
        more = b"Content-Type: text/plain\r\nContent-Length: %d\r\n" % len(body) if body else b""
        line = b"%b /x?n=%d%b HTTP/1.1\r\nHost: h\r\n" % (b"POST" if body else b"GET", number, slow)
        sock.sendall(line + more + b"\r\n" + body)
        self._selector.register(sock, selectors.EVENT_READ, _Request(number, len(body)))

    def _hear(self, key: selectors.SelectorKey) -> None:
        request, sock = key.data, key.fileobj
        assert isinstance(sock, socket.socket)
        data = sock.recv(65_536)
        request.heard += data
        if data and not request.is_answered():
            return
        self._selector.unregister(sock)
        self.done += 1
        if not request.is_right():
            self.failures.append(request.heard[:200])
        if not data:
            sock.close()
            sock = self._connect()
        self._ask(sock)
