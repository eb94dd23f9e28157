"""One request and its answer over a kept connection, as far as HTTP/1.1 is needed to speak to etcd.

http.client costs three times as much processor time a request, most of it for headers that nobody looks at.
"""

from __future__ import annotations

import re
import socket
import time

_PIECE = 1 << 16  # bytes that are read at a time, between two looks at the clock
_LONGEST_HEAD = 1 << 16  # bytes, of a status line and headers, or of what describes a chunk
_LONGEST = 1 << 30  # bytes of an answer; a page of the largest records that there can be is far below
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?(?:\r\n|$)")
# In headers that were made lower case.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*(?=\r\n|$)")
_ENCODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*)")
_CLOSES = re.compile(rb"\r\nconnection:[^\r\n]*\bclose\b")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?")
_NO_BODY = (204, 304)  # statuses


class BadAnswer(Exception):
    """What came is no whole answer that can be understood."""


class NoHttp(BadAnswer):
    """What came is no HTTP; the text is how it begins."""


class HungUp(ConnectionResetError):
    """The connection was closed before anything of an answer came."""


def request(method: str, host: str, path: str, body: bytes | None, token: str) -> bytes:
    """Return a request for one `sendall`; `host` as the header wants it. Raises UnicodeError for an odd token."""
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    login = f"Authorization: {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: identity\r\n{length}{login}\r\n"
    return head.encode("latin-1") + (body or b"")


class AnswerReader:
    """Reads one answer from a socket whose timeout is set to what is left until `until` (monotonic, seconds).

    `keeps`: after the answer, the connection may be used for another one.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.keeps = False
        self._sock = sock
        self._until = until
        self._data = bytearray()  # that came and was not used yet
        self._has_begun = False

    def read(self) -> tuple[int, bytes]:
        """Return the status and the body. Raises BadAnswer, OSError (TimeoutError at `until`)."""
        status = 100
        while status < 200:  # what comes before the answer itself says nothing
            version, status, head = self._read_head()
        length = _LENGTH.search(head)
        encoding = _ENCODING.search(head)
        ends = True  # the answer says where it ends
        if status in _NO_BODY:
            body = b""
        elif encoding is not None:
            if encoding[1].strip() != b"chunked":
                raise BadAnswer("the answer is encoded in an unknown way")
            body = self._read_chunks()
        elif length is not None:
            body = self._take(int(length[1]))
        else:
            ends = False
            body = self._read_to_end()
        self.keeps = ends and version == b"1" and not self._data and _CLOSES.search(head) is None
        return status, body

    def _read_head(self) -> tuple[bytes, int, bytes]:
        if not self._data and not self._receive():
            raise HungUp("it hung up without an answer")
        head = self._take_to(b"\r\n\r\n", is_start=True)
        found = _STATUS.match(head)
        if found is None:
            raise NoHttp(_beginning(head))
        return found[1], int(found[2]), head.lower()

    def _read_chunks(self) -> bytes:
        pieces = []
        total = 0
        while True:
            found = _CHUNK.fullmatch(self._take_to(b"\r\n"))
            if found is None:
                raise BadAnswer("a chunk of the answer can't be read")
            size = int(found[1], 16)
            if size == 0:
                break
            total += size
            if total > _LONGEST:
                raise BadAnswer("the answer is too long")
            pieces.append(self._take(size))
            if self._take(2) != b"\r\n":
                raise BadAnswer("a chunk of the answer can't be read")
        while self._take_to(b"\r\n"):
            pass  # headers that came behind
        return b"".join(pieces)

    def _read_to_end(self) -> bytes:
        while self._receive():
            if len(self._data) > _LONGEST:
                raise BadAnswer("the answer is too long")
        return self._cut(len(self._data))

    def _take(self, length: int) -> bytes:
        if length > _LONGEST:
            raise BadAnswer("the answer is too long")
        while len(self._data) < length:
            self._receive_more()
        return self._cut(length)

    def _take_to(self, end: bytes, is_start: bool = False) -> bytes:
        """Return what stands before the next `end`, and drop that, too."""
        looked = 0
        while (found := self._data.find(end, looked)) < 0:
            if is_start and b"\n" in self._data and not _STATUS.match(self._data):
                raise NoHttp(_beginning(self._data))
            if len(self._data) > _LONGEST_HEAD:
                raise BadAnswer("the answer's headers are too long")
            looked = max(len(self._data) - len(end) + 1, 0)
            if not self._receive():
                if is_start and not b"HTTP/".startswith(self._data[:5]):
                    raise NoHttp(_beginning(self._data))
                raise BadAnswer("the answer was cut off")
        taken = self._cut(found + len(end))
        return taken[: -len(end)]

    def _cut(self, length: int) -> bytes:
        taken = bytes(memoryview(self._data)[:length])
        del self._data[:length]
        return taken

    def _receive_more(self) -> None:
        if not self._receive():
            raise BadAnswer("the answer was cut off")

    def _receive(self) -> bool:
        """Wait for some more; False at the end of the connection."""
        if self._has_begun:  # what came before has used some of the time
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer took too long")
            self._sock.settimeout(left)
        self._has_begun = True
        piece = self._sock.recv(_PIECE)
        self._data += piece
        return bool(piece)


def _beginning(data: bytes | bytearray) -> str:
    return bytes(data).partition(b"\n")[0].strip().decode("latin-1")
