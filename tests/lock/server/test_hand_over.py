"""What a lock server hands over to the next one: its sockets, where its state is, and the number of the last grant."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from ipclocker.daemon.inheritance import Inheritance
from ipclocker.lock.server.server import LockServer

from ...support.servers import Lockerd, Peer
from ...support.waiting import wait_for

FAR = 5 * 10**18  # beyond what any clock says in microseconds


def token(server: Lockerd, name: str) -> int:
    """Take a lock; the number of the grant."""
    answer = server.ask(f"user u;locks {name};token 1;LOCK")
    return next(int(line.split()[1]) for line in answer if line.startswith("token "))


@pytest.mark.parametrize("keeps", [True, False])
def test_tokens_grow_though_the_clock_steps_back(tmp_path: Path, keeps: bool) -> None:
    clock = tmp_path / "clock"
    clock.write_text("1900000000000000000")
    options = ["--state", str(tmp_path / "state.db")] if keeps else []
    with Lockerd(*options, before=f"import time; time.time_ns = lambda: int(open({str(clock)!r}).read())") as server:
        last = token(server, "x")
        for year in (2020, 2000):
            clock.write_text(f"{(year - 1970) * 31_556_952}000000000")
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "started again" in heard(server), "the restart")
            now = token(server, f"x{year}")
            assert now > last
            last = now


def heard(server: Lockerd) -> str:
    """The next line that it logs."""
    assert server.process.stderr is not None
    return server.process.stderr.readline().decode()


def test_the_next_server_goes_on_with_what_it_was_handed() -> None:
    first = LockServer("127.0.0.1", 0, inherited=Inheritance(last_token=FAR))
    handed = first.hand_over()
    assert handed.last_token == FAR and handed.state is None and handed.name is None
    with socket.create_connection(handed.sockets[0].getsockname()):  # nobody is refused
        second = LockServer("no-such-host", 1, inherited=handed)
        assert second.addresses == [f"127.0.0.1:{handed.sockets[0].getsockname()[1]}"]
        second.close()


def test_the_name_of_a_unix_socket_goes_with_the_last_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    handed = LockServer(path=str(path)).hand_over()
    Peer(str(path)).close()
    last = LockServer(path=str(path), inherited=handed)
    assert last.addresses == [str(path)]
    last.close()
    assert not path.exists()


def test_a_name_that_another_server_has_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    handed = LockServer(path=str(path)).hand_over()
    path.rename(tmp_path / "away")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        LockServer(path=str(path), inherited=handed).close()
        assert path.exists()


def test_the_state_is_where_it_was(tmp_path: Path) -> None:
    first = LockServer("127.0.0.1", 0, state_dir=str(tmp_path))
    handed = first.hand_over()
    assert handed.state == str(tmp_path / f"lockerd-{handed.sockets[0].getsockname()[1]}.db")
    second = LockServer("127.0.0.1", 0, state_dir=str(tmp_path / "other"), inherited=handed)
    assert second.state_file == handed.state
    second.close()
