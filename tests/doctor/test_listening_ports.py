"""Who has a port, by the kernel's tables."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ipclocker.doctor.listening_ports import ListeningPort, listeners, listening, written

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TABLE = (
    HEAD
    + "   0: 0100007F:06D7 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1 0 100\n"
    + "   1: 0100007F:06D7 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100\n"
    + "   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1 0 100\n"
)
linux = pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux")


def test_only_who_listens_on_that_port() -> None:
    assert listening(TABLE, "tcp", 1751) == {41: "127.0.0.1"}
    assert listening(TABLE, "tcp", 22) == {43: "0.0.0.0"}
    assert listening(TABLE, "tcp", 80) == {}


@pytest.mark.skipif(os.sys.byteorder != "little", reason="written as little-endian kernels write it")  # type: ignore[attr-defined]
def test_addresses() -> None:
    assert written("0100007F") == "127.0.0.1"
    assert written("00000000000000000000000001000000") == "::1"
    assert written("B80D01200000000000000000" + "01000000") == "2001:db8::1"


def test_where_a_listener_is_asked() -> None:
    assert ListeningPort("0.0.0.0").ask_at == "127.0.0.1"
    assert ListeningPort("::").ask_at == "::1"
    assert ListeningPort("10.0.0.1").ask_at == "10.0.0.1"


@linux
@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
def test_this_process_is_found_by_its_port(kind: int, protocol: str) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        found = listeners(protocol, sock.getsockname()[1])
        assert found is not None
        [listener] = found
        assert (listener.address, listener.pid) == ("127.0.0.1", os.getpid())
        assert listener.name in str(listener) and listener.name
        port = sock.getsockname()[1]
    assert listeners(protocol, port) == []
