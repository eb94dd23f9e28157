"""Whether a connection was accepted, and how much memory there is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ipclocker.prefork.worker_requests import Requests, has_connection, resident_size


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_connection_that_was_accepted(family: socket.AddressFamily, tmp_path: Path) -> None:
    with socket.socket(family) as listener, socket.socket(family) as client, socket.socket(family) as elsewhere:
        if family == socket.AF_UNIX:
            listener.bind(str(tmp_path / "socket"))
        else:
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen()
        assert not has_connection()
        client.connect(listener.getsockname())
        assert not has_connection()  # its end of it; the other is nobody's yet
        connection, _ = listener.accept()
        assert has_connection()
        assert elsewhere.fileno() > 0
        connection.close()
        assert not has_connection()
        assert listener.fileno() > 0


def test_a_connection_that_nobody_in_the_program_knows_of_yet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        number = connection.detach()
        assert has_connection()
        os.close(number)
        assert not has_connection()


def test_resident_size() -> None:
    before = resident_size()
    block = b"x" * 50_000_000
    assert 48_000 < resident_size() - before < 60_000
    del block


def test_limits() -> None:
    requests = Requests()
    assert requests.limit(0, 0, 1) is None
    for _ in range(4):
        requests.begin(0)
        requests.end()
    assert requests.limit(5, 0, 1) is None
    assert requests.limit(4, 0, 1) == "max_requests (4)"
    assert requests.limit(0, 1, 3) is None
    assert str(requests.limit(0, 1, 2)).startswith("max_size (")
    assert requests.limit(0, 10**9, 2) is None
    assert requests.limit(0, 1, 0) is None
