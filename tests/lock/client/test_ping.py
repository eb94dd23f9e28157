"""Asking all listed servers: who serves, who stands by for another one, and who is silent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ipclocker.errors import ServerUnavailable
from ipclocker.lock.client import ping
from ipclocker.lock.client.ping import ping_hosts, serving
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.snapshot import HostState

from ...support.fake_servers import ClassicServer, FakeTcpServer, ScriptedServer


def ask(*servers: FakeTcpServer | int, within: float = 60.0) -> list[HostState]:
    ports = [server if isinstance(server, int) else server.port for server in servers]
    hosts = ":".join(f"[127.0.0.1]:{port}" for port in ports)
    return ping_hosts(LockSettings(host=hosts, connect_tries=1), within)


def states(hosts: list[HostState]) -> list[str]:
    return [host.state for host in hosts]


def pong(hosts: list[HostState]) -> tuple[str, float | None]:
    """The version and the start of the one that serves."""
    found = serving(hosts).ping
    assert found is not None
    return found.version, found.started


@contextmanager
def refusing() -> Iterator[int]:
    """The number of a port that is taken, and where nobody listens: that of one that stands by."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def version(space: bytes = b"") -> dict[bytes, bytes]:
    return {b"VERSION": space + b"version 9.5 1700000000\n\n"}


def replicated(*ports: int, host: bytes = b"127.0.0.1") -> bytes:
    return b"space f00 replicated 5\n" + b"".join(b"member h%d %b:%d\n" % (port, host, port) for port in ports)


def test_one_server() -> None:
    with ScriptedServer({}) as server:
        [host] = ask(server)
        assert host.ping is not None and host.state == "serves"
        assert host.ping[2:] == ("9.5", 1700000000) and host.ping.seconds > 0
        assert host.server == host.ping.server == f"127.0.0.1:{server.port}"
        server.answers[b"VERSION"] = b"version \xff soon\n\n"
        assert pong(ask(server)) == ("\\xff soon", None)
        server.answers[b"VERSION"] = b"version\n\n"
        assert pong(ask(server)) == ("", None)


def test_one_that_stands_by_for_the_one_that_serves() -> None:
    with refusing() as port, ScriptedServer({}) as server:
        server.answers.update(version(replicated(server.port, port)))
        first, second = ask(port, server)
    assert first == HostState(
        f"127.0.0.1:{port}", "stands by", None, f"127.0.0.1:{port}: Connection refused", "f00", True
    )
    assert (second.state, second.space, second.is_replicated) == ("serves", "f00", True)


def test_a_member_may_be_named_otherwise() -> None:
    with refusing() as port, ScriptedServer({}) as server:
        server.answers.update(version(replicated(port, host=b"localhost")))
        assert states(ask(server, port)) == ["serves", "stands by"]


def test_a_port_where_nobody_listens_is_silent_unless_it_is_a_members() -> None:
    with refusing() as port, ScriptedServer(version(replicated(1, 2))) as server:
        assert states(ask(server, port)) == ["serves", "silent"]
        server.answers.update(version(b"space f00\nmember h%d 127.0.0.1:%d\n" % (port, port)))
        assert states(ask(server, port)) == ["serves", "silent"], "nobody may serve that one's lock space"


def test_a_member_that_does_not_answer_does_not_stand_by() -> None:
    with socket.socket() as sock, ScriptedServer({}) as server:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        server.answers.update(version(replicated(port)))
        found = ask(server, port)
    assert states(found) == ["serves", "silent"]


def test_two_lock_spaces_and_a_classic_server() -> None:
    one, two = (ScriptedServer(version(b"space %b\n" % space)) for space in (b"f00", b"f11"))
    with one, two, ClassicServer() as classic:
        found = ask(one, two, classic)
    assert states(found) == ["serves"] * 3
    assert [host.space for host in found] == ["f00", "f11", ""]


def test_none_that_serves() -> None:
    with refusing() as port, refusing() as other:
        found = ask(port, other)
        with pytest.raises(ServerUnavailable) as problem:
            serving(found)
    assert str(problem.value) == (
        f"no lock server answers (127.0.0.1:{port}: Connection refused; 127.0.0.1:{other}: Connection refused): "
        "start lockerd there, or name its host"
    )


def test_a_silent_one_is_not_waited_for_once_another_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "_FOR_OTHERS", 0.1)
    with socket.socket() as sock, ScriptedServer({}) as server:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        found = ask(sock.getsockname()[1], server, within=1e6)
    assert states(found) == ["silent", "serves"]
    assert found[0].problem == "no answer in time"


@pytest.mark.parametrize("line", [b"member h nonsense\n", b"member h :\n", b"member h \xff:1 [::1:2\n", b"member\n"])
def test_odd_members(line: bytes) -> None:
    with refusing() as port, ScriptedServer(version(b"space f00 replicated 5\n" + line)) as server:
        assert states(ask(server, port)) == ["serves", "silent"]
