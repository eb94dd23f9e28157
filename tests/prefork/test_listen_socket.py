"""The socket that the programs get: where, whose, and given back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.errors import IpclockerError, UsageError
from ipclocker.prefork.listen_socket import (
    Access,
    InheritedDescriptor,
    ListenSocket,
    TcpPort,
    UnixPath,
    parse_access,
    parse_listen,
)

from ..support import PROJECT


def test_places() -> None:
    assert parse_listen("127.0.0.1:9000") == TcpPort("127.0.0.1", 9000)
    assert parse_listen("[::1]:9000") == TcpPort("::1", 9000)
    assert parse_listen("localhost:0") == TcpPort("localhost", 0)
    assert parse_listen(":9000") == TcpPort("", 9000)
    assert parse_listen("host:http") == TcpPort("host", 80)
    assert parse_listen("unix:/run/x") == UnixPath("/run/x")
    assert parse_listen("unix:x") == UnixPath(str(Path("x").absolute()))
    assert parse_listen("fd:0") == InheritedDescriptor(0)


@pytest.mark.parametrize("text", ["", "x", "9000", "h:", "h:x", "h:70000", "::1:9000", "unix:", "fd:", "fd:x", "fd:-1"])
def test_no_places(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text.rpartition(":")[2] or "'")):
        parse_listen(text)


def test_access() -> None:
    assert parse_access(None, None) == Access(0o660, None, None)
    assert parse_access("0777", "root") == Access(0o777, 0, None)
    assert parse_access(None, "5:6") == Access(0o660, 5, 6)
    assert parse_access("600", ":root") == Access(0o600, None, 0)


@pytest.mark.parametrize(
    ("mode", "owner"),
    [("", None), ("rw", None), ("888", None), ("7777", None), (None, ""), (None, ":"), (None, "no such"), (None, ":n")],
)
def test_no_access(mode: str | None, owner: str | None) -> None:
    with pytest.raises(UsageError, match=r"the socket's (mode|owner|group) can't be"):
        parse_access(mode, owner)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_port(host: str) -> None:
    listening = ListenSocket(TcpPort(host, 0))
    try:
        address = listening.socket.getsockname()
        assert listening.socket.getblocking()
        assert str(listening) == (f"[::1]:{address[1]}" if host == "::1" else f"127.0.0.1:{address[1]}")
        socket.create_connection((host, address[1])).close()
        with pytest.raises(UsageError, match="Address already in use"):
            ListenSocket(TcpPort(host, address[1]))
    finally:
        listening.close()
    ListenSocket(TcpPort(host, address[1])).close()


def test_a_name_with_its_mode_and_owner(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    owner = Access(0o640, 5, 6) if os.geteuid() == 0 else Access(0o640)
    listening = ListenSocket(UnixPath(path), owner)
    try:
        status = os.stat(path)
        assert stat.S_IMODE(status.st_mode) == 0o640
        if os.geteuid() == 0:
            assert (status.st_uid, status.st_gid) == (5, 6)
        assert str(listening) == f"unix:{path}"
        assert listening.socket.getblocking()
        with pytest.raises(UsageError, match="another server answers there"):
            ListenSocket(UnixPath(path))
    finally:
        listening.close()
    assert not os.path.exists(path)


def test_a_name_is_for_its_owner_and_group_if_nothing_is_said(tmp_path: Path) -> None:
    listening = ListenSocket(UnixPath(str(tmp_path / "socket")))
    try:
        assert stat.S_IMODE(os.stat(tmp_path / "socket").st_mode) == 0o660
    finally:
        listening.close()


def test_the_name_of_a_dead_server_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    ListenSocket(UnixPath(str(path))).close()
    path.write_text("precious")
    with pytest.raises(UsageError, match="it is a file, and no socket"):
        ListenSocket(UnixPath(str(path)))


# A server with a child that has the socket, too, and goes on when the server is killed.
SERVER = """
import os, sys, time
from ipclocker.prefork.listen_socket import ListenSocket, UnixPath
listening = ListenSocket(UnixPath(sys.argv[1]))
child = os.fork()
if child:
    os.write(1, b"%d\\n" % child)
time.sleep(1000)
"""


@contextlib.contextmanager
def server_with_child(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", SERVER, path], cwd=PROJECT, stdout=-1, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_a_name_is_taken_over_when_only_the_children_of_a_killed_server_have_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with server_with_child(path) as process:
        for _ in range(2):  # to look changes nothing
            with pytest.raises(UsageError, match="another server answers there"):
                ListenSocket(UnixPath(str(path)))
        process.kill()
        process.wait()
        listening = ListenSocket(UnixPath(str(path)))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            listening.socket.accept()[0].close()
        with pytest.raises(UsageError, match="another server answers there"):
            ListenSocket(UnixPath(str(path)))
        listening.close()
        assert list(tmp_path.iterdir()) == []


def test_a_name_that_another_program_has_got_meanwhile_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with server_with_child(path) as process:
        process.kill()
        process.wait()
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            with pytest.raises(UsageError, match="another server answers there"):
                ListenSocket(UnixPath(str(path)))


@pytest.mark.parametrize("place", [TcpPort("127.0.0.1", 0), UnixPath("socket")])
def test_it_listens_again_at_the_same_address(place: TcpPort | UnixPath, tmp_path: Path) -> None:
    if isinstance(place, UnixPath):
        place = UnixPath(str(tmp_path / place.path))
    listening = ListenSocket(place)
    name, address = str(listening), listening.socket.getsockname()
    copy = listening.socket.dup()  # as others have it
    try:
        for _ in range(2):
            listening.socket.shutdown(socket.SHUT_RDWR)
            with socket.socket(copy.family) as client, pytest.raises(ConnectionRefusedError):
                client.connect(address)
            listening.listen_again()
            with socket.socket(copy.family) as client:
                client.connect(address)
                listening.socket.accept()[0].close()
        assert str(listening) == name
    finally:
        listening.close()
        copy.close()
    assert list(tmp_path.iterdir()) == []


def test_it_does_not_listen_again_where_another_program_does(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listening = ListenSocket(UnixPath(path))
    with socket.socket(socket.AF_UNIX) as other:
        os.unlink(path)
        other.bind(path)
        other.listen()
        with pytest.raises(UsageError, match="another server answers there"):
            listening.listen_again()
        assert listening.socket.fileno() >= 0
        listening.close()
        assert os.path.exists(path)


@pytest.mark.parametrize("place", [TcpPort("127.0.0.1", 0), UnixPath("socket")])
def test_the_backlog(place: TcpPort | UnixPath, tmp_path: Path) -> None:
    if isinstance(place, UnixPath):
        place = UnixPath(str(tmp_path / place.path))
    listening = ListenSocket(place, backlog=7)
    try:
        shown = subprocess.run(["ss", "-Hnlp"], capture_output=True, text=True, check=True).stdout
        where = str(listening).replace("unix:", "")
        assert [line.split()[3] for line in shown.splitlines() if where in line] == ["7"]
    finally:
        listening.close()


def test_inherited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        number = os.dup(listener.fileno())
        os.set_inheritable(number, True)
        listening = ListenSocket(InheritedDescriptor(number))
        try:
            assert listening.socket.fileno() == number
            assert not os.get_inheritable(number)  # under this number
            assert os.get_blocking(number)
        finally:
            listening.close()


def test_what_is_no_listening_socket(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="descriptor 987 is no open socket"):
        ListenSocket(InheritedDescriptor(987))
    with (tmp_path / "file").open("w") as file, pytest.raises(UsageError, match="is no open socket"):
        ListenSocket(InheritedDescriptor(file.fileno()))
    with socket.socket() as sock, pytest.raises(UsageError, match="nobody listens"):
        ListenSocket(InheritedDescriptor(sock.fileno()))
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(UsageError, match="nobody listens"):
        ListenSocket(InheritedDescriptor(sock.fileno()))


def test_what_does_not_go_together() -> None:
    with pytest.raises(UsageError, match="mode and owner are of a UNIX socket"):
        ListenSocket(TcpPort("127.0.0.1", 0), Access())


def test_a_host_that_is_not_known() -> None:
    with pytest.raises(IpclockerError, match=r"no\.such\.host\.invalid"):
        ListenSocket(TcpPort("no.such.host.invalid", 0))
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1:0"):
        ListenSocket(TcpPort("192.0.2.1", 0))
