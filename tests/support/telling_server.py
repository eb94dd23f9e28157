"""A lock server that answers what a test has written down, and skips all other commands as a classic one does."""

from __future__ import annotations

import socket

from .memory import ThreadedServer

VERSION = b"version 9.5 1700000000\n\n"
NOTHING = b"\n\n"


class TellingServer(ThreadedServer):
    """`answers` has the bytes for each command line, or for its first word; `asked` the lines that came."""

    def __init__(self, answers: dict[bytes, bytes], port: int = 0) -> None:
        self.answers = {b"VERSION": VERSION, **answers}
        self.asked: list[bytes] = []
        super().__init__(self._talk, port=port)

    def _talk(self, sock: socket.socket) -> None:
        rest = b""
        while data := sock.recv(65_536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.asked.append(line)
                answer = self.answers.get(line, self.answers.get(line.partition(b" ")[0]))
                if answer is not None:
                    sock.sendall(answer)
