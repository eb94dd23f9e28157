"""The server that the lock server is measured against: it does the least that any Python server must for a request.

python -m tests.bench.bare_server one-shot|kept PORT
"""

from __future__ import annotations

import selectors
import socket
import sys

FREE = b"owner \nlocked 0\n\n\n"
LOCKED = b"owner h_1_u\nlocked 1\nlockname L1_1\n\n\n"


def _answer(request: bytes) -> bytes:
    return FREE if b"UNLOCK" in request else LOCKED


def one_shot(listener: socket.socket) -> None:
    """Accept, read, answer, close."""
    while True:
        sock, _ = listener.accept()
        sock.send(_answer(sock.recv(65_536)))
        sock.close()


def kept(listener: socket.socket) -> None:
    """Wait for any of the connections, read, answer."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            assert isinstance(key.fileobj, socket.socket)
            try:
                data = key.fileobj.recv(65_536)
            except ConnectionError:
                data = b""
            if data:
                key.fileobj.send(_answer(data))
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def main() -> None:
    """Serve for ever."""
    kind, port = sys.argv[1:]
    with socket.create_server(("127.0.0.1", int(port)), backlog=4096) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
        (one_shot if kind == "one-shot" else kept)(listener)


if __name__ == "__main__":
    main()
