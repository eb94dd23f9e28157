"""A load straight on etcd, for comparison: clients that send one transaction after the other to its JSON gateway."""

from __future__ import annotations

import re
import select
import socket
import time
from base64 import b64encode
from collections.abc import Sequence

# As large as a lock of lockersh.
_VALUE = b64encode(b'{"user":"host_4711_user","session":"%s","since":%d.123}' % (b"0" * 32, 1 << 30)).decode()
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class BareEtcd:
    """Clients, spread over the members, each with so many changes in a transaction: keys are written, then deleted."""

    def __init__(self, urls: Sequence[str], clients: int, changes: int) -> None:
        self._changes = changes
        self._poll = select.epoll()
        self._sockets: dict[int, tuple[int, socket.socket]] = {}
        self._requests = []
        self._rounds = [0] * clients
        for client in range(clients):
            host, _, port = urls[client % len(urls)].rpartition("/")[2].partition(":")
            sock = socket.create_connection((host, int(port)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._requests.append([_request(client, changes, deletes) for deletes in (False, True)])
            self._sockets[sock.fileno()] = (client, sock)
            self._poll.register(sock, select.EPOLLIN)

    def run(self, seconds: float) -> int:
        """Go on for so long; the number of changes in that time."""
        done = 0
        answers = dict.fromkeys(self._sockets, b"")
        for client, sock in self._sockets.values():
            sock.sendall(self._requests[client][self._rounds[client] % 2])
        end = time.monotonic() + seconds
        missing = len(self._sockets)  # answers that have not come yet
        while missing:
            for descriptor, _ in self._poll.poll(1.0):
                client, sock = self._sockets[descriptor]
                answer = answers[descriptor] = answers[descriptor] + sock.recv(1 << 16)
                if not _is_complete(answer):
                    continue
                assert b'"succeeded":true' in answer, answer
                answers[descriptor] = b""
                self._rounds[client] += 1
                done += self._changes
                if time.monotonic() < end:
                    sock.sendall(self._requests[client][self._rounds[client] % 2])
                else:
                    missing -= 1
        return done


def _is_complete(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if length is not None:
        return len(body) >= int(length[1])
    return body.endswith(b"\r\n0\r\n\r\n")  # it is sent in chunks


def _request(client: int, changes: int, deletes: bool) -> bytes:
    keys = [b64encode(b"bare/%d/%d" % (client, number)).decode() for number in range(changes)]
    if deletes:
        operations = [f'{{"request_delete_range":{{"key":"{key}"}}}}' for key in keys]
    else:
        operations = [f'{{"request_put":{{"key":"{key}","value":"{_VALUE}"}}}}' for key in keys]
    body = f'{{"success":[{",".join(operations)}]}}'
    return f"POST /v3/kv/txn HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
