"""What stands between a member of etcd and its clients, or in its place, and answers as a test says."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable, NamedTuple, Optional

from .waiting import DEADLINE

Answer = Optional[tuple[int, bytes]]  # status and body; None: the connection is cut off without one


def error(status: int, code: int, message: str) -> tuple[int, bytes]:
    """An error as etcd tells it."""
    return status, json.dumps({"error": message, "message": message, "code": code}).encode()


TIMED_OUT = error(503, 14, "etcdserver: request timed out")
NO_SPACE = error(429, 8, "etcdserver: mvcc: database space exceeded")


class Exchange(NamedTuple):
    """One request; `forward` hands it to the member behind, and returns the answer."""

    method: str
    path: str
    body: bytes
    token: str
    port: int

    def forward(self) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            headers = {"Authorization": self.token} if self.token else {}
            connection.request(self.method, self.path, self.body, headers)
            response = connection.getresponse()
            return response.status, response.read()


Behaviour = Callable[[Exchange], Answer]


def loses_the_answer(exchange: Exchange) -> Answer:
    """As when quorum comes back too late: it was carried out, and is said to be open."""
    exchange.forward()
    return TIMED_OUT


def cuts_off_the_answer(exchange: Exchange) -> Answer:
    exchange.forward()
    return None


def loses_the_request(exchange: Exchange) -> Answer:
    return TIMED_OUT


def refuses(exchange: Exchange) -> Answer:
    return NO_SPACE


def takes_the_last_room(exchange: Exchange) -> Answer:
    """As etcd does with a write that it finds too large only when it carries it out."""
    exchange.forward()
    return NO_SPACE


class Delays:
    """It takes requests, says that they are open, and carries them out when it is told to."""

    def __init__(self) -> None:
        self.kept: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> Answer:
        self.kept.append(exchange)
        return TIMED_OUT

    def carry_out(self) -> list[tuple[int, bytes]]:
        return [exchange.forward() for exchange in self.kept]


class Gateway:
    """It hands on all that it is asked to the member at `port`, but for the next writes: these go as `next_writes` say.

    `always`, if it is set, answers everything; `writes` are the bodies of all transactions that put something.
    """

    def __init__(self, port: int = 0, always: Behaviour | None = None) -> None:
        self.next_writes: deque[Behaviour] = deque()
        self.always = always
        self.writes: list[bytes] = []
        self.requests = 0
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                token = self.headers.get("Authorization", "")
                answer = gateway._answer(Exchange(self.command, self.path, body, token, port))
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                with contextlib.suppress(ConnectionError):  # a client that has given up
                    self.send_response(answer[0])
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(answer[1])))
                    self.end_headers()
                    self.wfile.write(answer[1])

            do_GET = do_POST

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, exchange: Exchange) -> Answer:
        self.requests += 1
        if self.always is not None:
            return self.always(exchange)
        if exchange.path == "/v3/kv/txn" and b"request_put" in exchange.body:
            self.writes.append(exchange.body)
            if self.next_writes:
                return self.next_writes.popleft()(exchange)
        return exchange.forward()

    @contextlib.contextmanager
    def running(self) -> Iterator[Gateway]:
        """Serve until the end of the `with`."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


@contextlib.contextmanager
def says(data: bytes) -> Iterator[str]:
    """What says these bytes to each connection, whatever it is asked, and ends it; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(DEADLINE)
                        with contextlib.suppress(OSError):
                            connection.recv(65536)
                            connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)
