"""Listening sockets: what they are set to, and who owns a UNIX socket's name. test_server.py has more."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ipclocker.errors import UsageError
from ipclocker.net import tcp_listener as listen
from ipclocker.net import unix_socket
from ipclocker.net.address import Address
from ipclocker.net.tcp_listener import (
    UnixListener,
    accept,
    bound_sockets,
    start_listening,
    stop_listening,
    tcp_listeners,
)

from ..support.waiting import DEADLINE


def test_what_a_client_is_accepted_with() -> None:
    (listener,) = tcp_listeners(["127.0.0.1"], 0)
    with listener, socket.create_connection(listener.getsockname()) as client:
        client.send(b"hello")
        listener.setblocking(True)
        sock, host = accept(listener, socket.AF_INET)
        try:
            assert host == "127.0.0.1" and sock.recv(9) == b"hello"
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            assert fcntl.fcntl(sock.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        finally:
            sock.close()


def test_a_server_may_start_again_while_its_old_connections_linger() -> None:
    (listener,) = tcp_listeners(["127.0.0.1"], 0)
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.send(b"x")
        listener.setblocking(True)
        sock, _ = accept(listener, socket.AF_INET)
        sock.close()
        listener.close()
        (again,) = tcp_listeners(["127.0.0.1"], port)
        again.close()


def test_an_address_family_that_this_host_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    original = listen._listen

    def without_ipv6(address: Address) -> socket.socket:
        if address.family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return original(address)

    monkeypatch.setattr(listen, "_listen", without_ipv6)
    (listener,) = tcp_listeners(["localhost"], 0)
    listener.close()
    with pytest.raises(UsageError, match="not supported"):
        tcp_listeners(["127.0.0.1", "::1"], 0)


def test_the_descriptor_limit_is_raised_in_the_server_only() -> None:
    script = (
        "import resource as r; from ipclocker.net.tcp_listener import raise_descriptor_limit as go; "
        "r.setrlimit(r.RLIMIT_NOFILE, (50, 99)); go(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "99 99\n" and resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_a_folder_that_stays_locked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_socket, "_LOCK_WITHIN", 0.05)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="locked by another process"):
            UnixListener(str(tmp_path / "s"))
    finally:
        os.close(folder)
    listener = UnixListener(str(tmp_path / "s"))
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_its_queue_being_full_is_a_sign_of_life(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen(0)
        client.connect(str(path))
        with pytest.raises(UsageError, match="another server answers"):
            UnixListener(str(path))
        assert path.exists()


# Sockets that are bound, and listen for a time only


def is_refused(address: Any) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as client:
        client.settimeout(DEADLINE)
        return client.connect_ex(address[:2]) == errno.ECONNREFUSED


def can_be_taken(address: Any, reuse: bool) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        try:
            thief.bind(address[:2])
            thief.listen()
        except OSError:
            return False
        return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_bound_socket_refuses_clients_and_keeps_others_off_its_port(host: str) -> None:
    (sock,) = bound_sockets([host], 0)
    address = sock.getsockname()
    clients = []
    for _ in range(3):
        assert is_refused(address)
        assert not can_be_taken(address, False) and not can_be_taken(address, True)
        start_listening(sock)
        clients.append(socket.create_connection(address[:2], DEADLINE))
        clients.append(accept_within(sock))
        clients.append(socket.create_connection(address[:2], DEADLINE))  # which nobody accepts
        assert not can_be_taken(address, False) and not can_be_taken(address, True)
        sock = stop_listening(sock)
        assert sock.getsockname() == address and stop_listening(sock) is sock
    sock.close()
    for client in clients:
        client.close()
    # Their connections are remembered for a minute, which keeps nobody from a new start.
    (again,) = bound_sockets([host], address[1])
    again.close()


def test_a_socket_that_does_not_listen_keeps_its_port_when_it_is_to_stop() -> None:
    """To bind the port again may fail, as while a child still has a copy of the socket that was closed."""
    (sock,) = bound_sockets(["127.0.0.1"], 0)
    with sock.dup():
        assert stop_listening(sock) is sock
        start_listening(sock)
        assert stop_listening(stop_listening(sock)) is sock
    sock.close()


def test_where_listening_cant_be_stopped_there_is_a_new_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    (sock,) = bound_sockets(["127.0.0.1"], 0)
    address = sock.getsockname()
    start_listening(sock)
    monkeypatch.setattr(socket.socket, "shutdown", raise_not_connected)
    new = stop_listening(sock)
    assert new is not sock and new.getsockname() == address and is_refused(address)
    new.close()


def accept_within(sock: socket.socket) -> socket.socket:
    sock.settimeout(DEADLINE)
    client, _ = sock.accept()
    sock.setblocking(False)
    return client


def raise_not_connected(*arguments: object) -> None:
    raise OSError(errno.ENOTCONN, "not connected")
