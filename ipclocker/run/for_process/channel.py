"""The front's end of a conversation with a keeper (control.py)."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from math import inf

from ...net.line_buffer import LineTooLong, split_lines
from ...net.ready import READ, wait_ready
from ...net.transport import PIECE
from ...process.identity import ProcessIdentity
from .control import LONGEST, Message, is_own, sockets_for


class Silent(Exception):
    """The keeper has said nothing before the deadline."""


class Channel:
    """A socket whose other end a keeper has."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._lines: list[bytes] = []
        sock.setblocking(True)

    def say(self, message: Message) -> bool:
        """Send a message; return False if the keeper has gone."""
        try:
            self._sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def hear(self, deadline: float = inf) -> Message | None:
        """Return the next message; None if the keeper has gone. Raises Silent at the deadline (monotonic seconds)."""
        while not self._lines:
            if not wait_ready(self._sock, READ, deadline):
                raise Silent
            try:
                data = self._sock.recv(PIECE)
                self._lines, self._rest = split_lines(self._rest, data, LONGEST)
            except (OSError, LineTooLong):
                return None
            if not data:
                return None
        try:
            message: Message = json.loads(self._lines.pop(0))
        except ValueError:
            return None
        return message

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def channels_to(process: ProcessIdentity, key: str = "") -> Iterator[Channel]:
    """Yield a channel to each keeper of this process, first to one for the locks with this key."""
    for path in sockets_for(process, key):
        sock = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):  # it was killed, or has just ended
            sock.connect(path)
            if is_own(sock):
                yield Channel(sock)
                continue
        sock.close()
