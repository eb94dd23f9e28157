"""Who has a port, and what a path is on, by the kernel's tables."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ipclocker.doctor.listening_ports import ListeningPort, listeners, listening, written
from ipclocker.doctor.probes import ThisHost, existing_parent, file_system, kind_of

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TABLE = (
    HEAD
    + "   0: 0100007F:06D7 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1 0 100\n"
    + "   1: 0100007F:06D7 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100\n"
    + "   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1 0 100\n"
)
MOUNTS = """\
22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /var rw shared:2 master:3 - xfs /dev/sdb rw
24 23 0:6 / /var/lib/a\\040b rw - nfs4 server:/x rw
25 22 0:7 / /variety rw - tmpfs none rw
26 22 0:8 / /srv/données rw - nfs server:/y rw
"""

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


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var", "xfs"),
        ("/var/lib/a b/c", "nfs4"),
        ("/var/lib", "xfs"),
        ("/variety/x", "tmpfs"),
        ("/srv/données/x", "nfs"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert kind_of(path, MOUNTS) == kind


@linux
def test_the_file_system_of_proc() -> None:
    assert file_system("/proc/self") == "proc"


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert existing_parent(str(tmp_path / "a" / "b")) == str(tmp_path)
    assert existing_parent(str(tmp_path)) == str(tmp_path)


def test_facts_about_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.delenv("IPCLOCKER_HOST", raising=False)
    host = ThisHost()
    assert (host.hosts, host.named) == (["localhost"], False)
    assert ThisHost("a:b").hosts == ["a", "b"] and ThisHost("a").named
    assert host.python()[0] >= (3, 9, 0)
    assert host.is_own_address("127.0.0.1") and not host.is_own_address("192.0.2.1")
    assert host.addresses("localhost")
    wall, monotonic, boot = host.clocks()
    assert wall > 0 and boot >= monotonic >= 0
    assert host.synchronised() in (True, False, None)
    assert host.state_folder()[0] == str(tmp_path / "state") and host.state_folder()[2] == ""
    (tmp_path / "state").write_text("")
    assert host.state_folder()[2] == f"{tmp_path}/state is no folder"
