"""Servers on sockets that they were started with, as systemd starts them; and sockets that they can't serve on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support import PROJECT
from ..support.activation import Activated, activated, launch, refused
from ..support.processes import children, is_alive
from ..support.servers import Peer, pid_client
from ..support.waiting import wait_for

LOCKERD = ("lockerd", "--nofork", "--state", "none")
PIDSTATD = ("pidstatd", "--nofork")


def listener(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.bind((host, 0))
    sock.listen()
    return sock


def unix(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def datagrams(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_served(place: str) -> bool:
    """Whether a lock server is there."""
    peer = Peer(place)
    try:
        peer.say("VERSION")
        return peer.hear_line().startswith("version ")
    finally:
        peer.close()


def is_asked(place: str) -> bool:
    """Whether a pid server is there."""
    with pid_client(place) as sock:
        sock.send(b"PIDR 1 h 7\n")
        return sock.recv(100) == b"EXIS 1 1 h"


@pytest.fixture
def folder() -> Iterator[Path]:
    """For UNIX sockets, whose names have to be short."""
    made = Path(tempfile.mkdtemp(prefix="ipcl"))
    yield made
    shutil.rmtree(made)


# lockerd


def test_a_lock_server_on_several_ports() -> None:
    with listener() as first, listener("127.0.0.2") as second, activated(LOCKERD, [first, second]) as server:
        assert server.addresses() == [address(first), address(second)]
        assert is_served(address(first)) and is_served(address(second))
        assert first.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "set as for own ones"
        assert server.end() == 0


def test_it_does_not_listen_where_its_options_say() -> None:
    with listener() as sock, activated([*LOCKERD, "--host", "no-such-host"], [sock]) as server:
        assert server.addresses() == [address(sock)]
        assert is_served(address(sock))


def test_started_anew_it_has_them_again() -> None:
    with listener() as sock, activated(LOCKERD, [sock]) as server:
        for _ in range(3):
            assert server.addresses() == [address(sock)]
            assert is_served(address(sock))
            server.process.send_signal(signal.SIGHUP)
        server.says("listening on")
        assert server.end() == 0


def test_who_comes_while_there_is_no_server_is_served_by_the_next_one() -> None:
    with listener() as sock:
        with activated(LOCKERD, [sock]) as server:
            server.addresses()
            assert server.end() == 0
        early = Peer(address(sock))
        early.say("VERSION")
        with activated(LOCKERD, [sock]):
            assert early.hear_line().startswith("version ")
        early.close()


def test_in_the_background_all_servers_of_a_guardian_have_them(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    words = ["lockerd", "--state", "none", "--pid-file", str(pid_file), "--log-file", str(tmp_path / "log")]
    with listener() as sock:
        with launch(words, [sock]) as launcher:
            assert launcher.communicate(timeout=20)[1] == "" and launcher.returncode == 0
        monitor = int(pid_file.read_text())
        try:
            (first,) = children(monitor)
            assert is_served(address(sock))
            os.kill(first, signal.SIGKILL)
            assert is_served(address(sock)), "after a moment without a server"
        finally:
            os.kill(monitor, signal.SIGTERM)
        wait_for(lambda: not is_alive(monitor), "the end")


def test_a_unix_socket_keeps_its_name(folder: Path) -> None:
    path = folder / "lockerd"
    with unix(str(path)) as sock:
        path.chmod(0o600)
        with activated(LOCKERD, [sock]) as server:
            assert server.addresses() == [str(path)]
            assert is_served(str(path))
            assert server.end() == 0
        assert path.stat().st_mode & 0o777 == 0o600, "whoever has made it says who may use it"


def test_an_abstract_unix_socket() -> None:
    name = f"ipclocker-test-{os.getpid()}"
    with unix(f"\0{name}") as sock, activated(LOCKERD, [sock]) as server:
        assert server.addresses() == [f"@{name}"]
        assert is_served(f"\0{name}")


@pytest.mark.parametrize("kind", ["port", "path", "abstract"])
def test_locks_are_kept_by_the_name_of_the_first(folder: Path, kind: str) -> None:
    name = {"port": "", "path": str(folder / "sock"), "abstract": f"\0ipclocker-test-{os.getpid()}"}[kind]
    with unix(name) if name else listener() as sock, listener() as other:
        with activated(["lockerd", "--nofork", "--state-dir", str(folder / "state")], [sock, other]) as server:
            server.addresses()
        written = {
            "port": str(sock.getsockname()[1]),
            "path": str(folder / "sock")[1:].replace("/", "%2F"),
            "abstract": f"%40{name[1:]}",
        }
        assert (folder / "state" / f"lockerd-{written[kind]}.db").exists()


# pidstatd


def test_a_pid_server() -> None:
    with datagrams() as first, datagrams("127.0.0.2") as second, activated(PIDSTATD, [first, second]) as server:
        for _ in range(2):
            assert [place.split(",")[0] for place in server.addresses()] == [address(first), address(second)]
            assert is_asked(address(first)) and is_asked(address(second))
            server.process.send_signal(signal.SIGHUP)
        server.says("listening on")
        assert server.end() == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_pid_server_answers_from_the_address_that_was_asked(host: str) -> None:
    with datagrams(host) as sock, activated(PIDSTATD, [sock]) as server:
        server.addresses()
        port = sock.getsockname()[1]
        assert is_asked(f"127.0.0.1:{port}") and is_asked(f"127.0.0.2:{port}")  # a connected socket hears no other


def test_a_pid_server_on_a_unix_socket(folder: Path) -> None:
    path = str(folder / "pidstatd")
    with unix(path, socket.SOCK_DGRAM) as sock, activated(PIDSTATD, [sock]) as server:
        assert server.addresses() == [path]
        assert is_asked(path)
        assert server.end() == 0
        assert Path(path).exists()


# Sockets that are none


def test_sockets_that_were_meant_for_another_process() -> None:
    with listener() as sock, activated([*LOCKERD, "--port", "0", "--host", "127.0.0.1"], [sock], pid="1") as server:
        (place,) = server.addresses()
        assert place != address(sock)
        assert is_served(place)


def test_no_sockets_at_all() -> None:
    with activated([*LOCKERD, "--port", "0", "--host", "127.0.0.1"], [], count="0") as server:
        (place,) = server.addresses()
        assert is_served(place)


def connected() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(datagrams, id="datagrams"),
        pytest.param(socket.socket, id="a socket that does not listen"),
        pytest.param(connected, id="a connection"),
        pytest.param(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), id="another family"),
        pytest.param(lambda: open(os.devnull), id="a file"),  # noqa: SIM115 - closed by the test
    ],
)
def test_what_no_lock_server_can_serve_on(made: Any) -> None:
    with listener() as good, made() as bad:
        said = refused(LOCKERD, [good, bad], names="good:bad.socket")
        assert said.startswith("lockerd: the inherited descriptor 4 (bad.socket) is no")
        assert is_listening(good)


def is_listening(sock: socket.socket) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(sock.getsockname()):
        return True
    return False


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(listener, id="a listener"),
        pytest.param(lambda: socket.socket(type=socket.SOCK_DGRAM), id="a socket without a port"),
        pytest.param(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), id="a socket without a name"),
    ],
)
def test_what_no_pid_server_can_be_asked_on(made: Any) -> None:
    with made() as bad:
        assert refused(PIDSTATD, [bad]).startswith("pidstatd: the inherited descriptor 3 is not a bound datagram")


@pytest.mark.parametrize("count", ["1", "999999999"])
def test_descriptors_that_are_not_there(count: str) -> None:
    assert refused(LOCKERD, [], count=count).startswith("lockerd: the inherited descriptor 3 is no open socket")


@pytest.mark.parametrize("count", ["-1", "many", "1 1", "9" * 5000])
def test_a_number_that_is_none(count: str) -> None:
    assert f"LISTEN_FDS is '{count}'" in refused(LOCKERD, [], count=count)


# Somebody else's launcher


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate here")
@pytest.mark.parametrize("tool", ["lockerd", "pidstatd"])
def test_started_by_systemd_socket_activate(folder: Path, tool: str) -> None:
    path = folder / tool
    words = [*(["-d"] if tool == "pidstatd" else []), "-l", str(path), "-E", f"PYTHONPATH={PROJECT}"]
    start = "import sys; from ipclocker.__main__ import main; sys.argv = sys.argv[1:]; main()"
    arguments = [*(LOCKERD if tool == "lockerd" else PIDSTATD)]
    with subprocess.Popen(
        ["systemd-socket-activate", *words, sys.executable, "-c", start, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            server = Activated(process)
            server.says("Listening on")
            assert is_served(str(path)) if tool == "lockerd" else is_asked(str(path))
            assert server.addresses() == [str(path)]
            assert server.end() == 0
        finally:
            if process.poll() is None:
                process.kill()
