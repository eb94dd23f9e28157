"""One answer over HTTP, in all shapes that it may come in, and what is none."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from ipclocker.lock.storage.etcd_connection import Connection
from ipclocker.lock.storage.etcd_settings import read_url
from ipclocker.lock.storage.http_exchange import AnswerReader, BadAnswer, HungUp, NoHttp, request

from ...support.waiting import DEADLINE

Answer = tuple[int, bytes, bool]  # status, body, and whether the connection may be used for another one


def read(data: bytes, piece: int = 1 << 20, closes: bool = True) -> Answer:
    """What is read from what comes in pieces of so many bytes, at the end of which the connection is closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(DEADLINE)

        def send() -> None:
            for start in range(0, len(data), piece):
                theirs.sendall(data[start : start + piece])
            if closes:
                theirs.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            reader = AnswerReader(ours, time.monotonic() + DEADLINE)
            return (*reader.read(), reader.keeps)
        finally:
            sender.join(DEADLINE)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, b"hello", True)),
        (b"HTTP/1.1 404 Not Found\r\nx: y\r\ncontent-LENGTH:0 \r\n\r\n", (404, b"", True)),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n\n", (200, b"\n", True)),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", (200, b"hello", True)),
        (CHUNKED + b"A;x=y\r\nhel\r\n\r\nlo!\r\n01\r\n?\r\n000\r\nx: z\r\nb:\r\n\r\n", (200, b"hel\r\n\r\nlo!?", True)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\na", (200, b"a", False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", (200, b"a", False)),
    ],
)  # fmt: skip
def test_an_answer_is_read_up_to_its_end_however_it_comes(data: bytes, answer: Answer, piece: int) -> None:
    assert read(data, piece, closes=False) == answer


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    assert read(b"HTTP/1.1 502 Bad Gateway\r\n\r\nno\r\n\r\nno", 2) == (502, b"no\r\n\r\nno", False)


def test_what_comes_behind_an_answer_is_of_none_that_was_asked_for() -> None:
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n") == (200, b"a", False)


def test_a_large_answer_is_read() -> None:
    body = b"0123456789" * 300_000
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + body) == (200, body, True)
    chunk = b"%x\r\n%b\r\n" % (len(body), body)
    assert read(CHUNKED + chunk * 2 + b"0\r\n\r\n") == (200, body * 2, True)


@pytest.mark.parametrize("piece", [1, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"5\r\nhelloworld\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"FFFFFFFFFF\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
    ],
)
def test_what_is_cut_off_or_odd_is_no_answer(data: bytes, piece: int) -> None:
    with pytest.raises(BadAnswer) as caught:
        read(data, piece if len(data) < 1000 else 1 << 20)
    assert not isinstance(caught.value, NoHttp)


@pytest.mark.parametrize("data", [b"220 mail ESMTP\r\n", b"SSH-2.0", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 ok\r\n\r\n"])
def test_what_is_no_http_is_told_apart_and_shown(data: bytes) -> None:
    for piece in (1, 1 << 20):
        with pytest.raises(NoHttp) as caught:
            read(data, piece)
        assert str(caught.value) == data.partition(b"\r")[0].decode()


def test_a_connection_that_ends_without_an_answer() -> None:
    with pytest.raises(HungUp):
        read(b"")


def test_an_answer_that_comes_byte_by_byte_gets_no_more_time_than_it_has() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for data in (b"", b"HTTP/1.1 200 OK\r\n", CHUNKED + b"1\r\na\r\n"):
            theirs.sendall(data)
            ours.settimeout(0.05)
            with pytest.raises(TimeoutError):
                AnswerReader(ours, time.monotonic() + 0.05).read()


def test_a_request_is_one_piece_with_its_length_and_token() -> None:
    assert request("POST", "a:1", "/v3/x", b"{}", "t") == (
        b"POST /v3/x HTTP/1.1\r\nHost: a:1\r\nAccept-Encoding: identity\r\n"
        b"Content-Length: 2\r\nAuthorization: t\r\n\r\n{}"
    )
    assert b"Content-Length" not in request("GET", "a:1", "/version", None, "")


def test_a_connection_is_kept_unless_the_answer_says_that_it_ends() -> None:
    """What was closed by the other side leaves nothing open: it is seen before anything is sent."""
    closes = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    keeps = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        heard: list[int] = []  # how many were asked on each connection

        def serve() -> None:
            for answers in ([keeps, keeps, closes], [keeps]):
                sock, _ = server.accept()
                with sock:
                    sock.settimeout(DEADLINE)
                    heard.append(0)
                    for answer in answers:
                        assert sock.recv(4096).startswith(b"POST /a HTTP/1.1\r\nHost: 127.0.0.1:")
                        heard[-1] += 1
                        sock.sendall(answer)
                    sock.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        connection = Connection(read_url(f"http://127.0.0.1:{server.getsockname()[1]}"), None)
        for _ in range(4):
            assert connection.ask("POST", "/a", b"{}", "", time.monotonic() + DEADLINE) == (200, b"{}")
        connection.close()
        thread.join(DEADLINE)
    assert heard == [3, 1]


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://db:1", b"db:1"), ("https://[::1]:2", b"[::1]:2"), ("http://[fe80::1%eth0]:3", b"[fe80::1]:3")],
)
def test_the_host_is_named_as_http_wants_it(url: str, host: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(Connection, "_connect", lambda self, within: ours)
    with theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection = Connection(read_url(url), None)
        assert connection.ask("GET", "/", None, "", time.monotonic() + DEADLINE) == (200, b"")
        connection.close()
        assert b"\r\nHost: %b\r\n" % host in theirs.recv(4096)
