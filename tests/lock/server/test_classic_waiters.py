"""Classic clients whose connection the server ends: each is told an error first, since its end alone means the grant.

The classic lockersh does not look at what lock() returned when the connection ended, and runs its command; an `error`
line makes it stop (PROTOCOL.md).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ipclocker.lock.model import Record
from ipclocker.lock.server import acceptor
from ipclocker.lock.server.request_handler import RequestHandler
from ipclocker.lock.server.server import LockServer
from ipclocker.lock.storage.base import Freed
from ipclocker.lock.storage.sqlite import SqliteStore
from ipclocker.net.address import own_host_name
from ipclocker.process.viewpoint import own_boot, own_pidns

from ...support.servers import Lockerd, Peer, Served, ThreadServer
from ...support.waiting import DEADLINE, wait_for

ERROR = ["error server_ended"]


def waiting(server: Served, variables: str = "") -> Peer:
    peer = server.connect()
    peer.say(f"user bob; locks x; block 1; {variables}LOCK")
    assert peer.hear_line() == "print_waiting ann"
    return peer


def hold(server: Served) -> Peer:
    holder = server.connect()
    assert holder.ask("user ann; locks x; LOCK")[1] == "locked 1"
    return holder


def test_one_that_waits_when_the_server_ends_hears_an_error_and_the_end_of_the_answer() -> None:
    with ThreadServer() as server:
        hold(server)
        classic, also_waiting = waiting(server), waiting(server, "user eve; ")
        server.end()
        for peer in (classic, also_waiting):
            assert peer.hear() == ERROR and peer.hear_until_closed() == b""


def test_a_holder_whose_process_nobody_watches_yet_is_not_in_the_way() -> None:
    """Its lock was granted in the server's last turn, so its process is not looked at before the sockets are closed."""
    server = LockServer("127.0.0.1", 0)
    here = f"autounlock 1; pid {os.getpid()}; hostname {own_host_name()}; boot {own_boot()}; pidns {own_pidns()}"
    with closing(Peer(server.addresses[0])) as holder, closing(Peer(server.addresses[0])) as late:
        holder.say(f"user ann; locks x; {here}; LOCK")
        late.say("user bob; locks x; block 1; LOCK")
        server.close()
        assert late.hear_until_closed().endswith(b"print_waiting ann\nerror server_ended\n\n\n")


@pytest.mark.parametrize("first", ["", "VERSION"])
def test_one_whose_lock_was_not_read_yet_when_the_server_ends_hears_the_same(first: str) -> None:
    server = LockServer("127.0.0.1", 0)  # it is served in turns of its loop, so not between them
    with closing(Peer(server.addresses[0])) as holder, closing(Peer(server.addresses[0])) as late:
        holder.say("user ann; locks x; LOCK")
        if first:  # the client has a connection that stays
            late.say(first)
        for peer in (holder, late) if first else (holder,):
            while peer.hears_nothing():
                server.loop.turn(DEADLINE)
        late.say("user bob; locks x; block 1; LOCK")
        server.close()
        assert late.hear_until_closed().endswith(b"print_waiting ann\nerror server_ended\n\n\n")


@pytest.mark.parametrize("is_read", [False, True])
def test_one_that_has_not_said_yet_who_it_is_when_the_server_ends_hears_an_error_too(is_read: bool) -> None:
    server = LockServer("127.0.0.1", 0)
    with closing(Peer(server.addresses[0])) as late:
        late.say("locks x; block 1")  # the other half of it is on its way
        if is_read:
            server.loop.turn(DEADLINE)
        server.close()
        late.say("user bob; LOCK")
        assert late.hear_until_closed() == b"error server_ended\n\n\n"


def test_one_who_connects_while_the_last_changes_are_written_hears_an_error_too(tmp_path: Path) -> None:
    late: list[Peer] = []

    class Slow(SqliteStore):
        def commit(self, changed: Sequence[Record], freed: Sequence[Freed], last_token: int) -> None:
            if changed and not late:
                late.append(Peer(server.addresses[0]))
                late[0].say("user bob; locks x; block 1; LOCK")
            super().commit(changed, freed, last_token)

    server = LockServer("127.0.0.1", 0, state=Slow(str(tmp_path / "state.db")))
    with closing(Peer(server.addresses[0])) as holder:
        holder.say("user ann; locks x; LOCK")
        server.close()
        assert holder.hear()[1] == "locked 1"
        assert late[0].hear_until_closed() == b"error server_ended\n\n\n"
        late[0].close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_same_from_a_process_that_is_told_to_end_or_to_start_again(number: int) -> None:
    with Lockerd() as server:
        hold(server)
        peer = waiting(server)
        server.process.send_signal(number)
        assert peer.hear() == ERROR and peer.hear_until_closed() == b""


def test_the_same_if_no_descriptor_is_left() -> None:
    """The end of each connection gives one back, for which no other client is to be let in any more."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
    with Lockerd(before=limit) as server:
        hold(server)
        peers = [waiting(server, f"user bob{number}; ") for number in range(10)]
        crowd = [server.connect() for _ in range(60)]
        for other in crowd:
            other.say("locks x; STATUS")  # so that the kernel hands it over
        assert server.process.stderr is not None
        assert any(b"new clients wait" in line for line in server.process.stderr)
        assert server.kill(signal.SIGTERM) == 0
        assert [peer.hear() for peer in peers] == [ERROR] * len(peers)
        assert b"Traceback" not in server.stderr


@pytest.mark.parametrize("variables", ["session s; ", "token 1; "])
def test_a_client_that_asks_again_by_itself_hears_no_error(variables: str) -> None:
    with ThreadServer() as server:
        hold(server)
        peer = waiting(server, variables)
        server.end()
        assert peer.hear_until_closed() == b""


def test_one_that_waits_for_nothing_hears_nothing() -> None:
    with ThreadServer() as server:
        holder = hold(server)
        server.end()
        assert holder.hear_until_closed() == b""


def _fail(*words: Any) -> bool:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize("first", ["", "VERSION"])
def test_a_fault_of_ours_is_an_error_to_a_classic_client_too(monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    monkeypatch.setitem(RequestHandler.handlers, b"STATUS", _fail)
    with ThreadServer() as server:
        peer = server.connect()
        if first:  # the client has a connection that stays
            peer.say(first)
            assert peer.hear_line().startswith("version")
            peer.hear_line()
        peer.say("user ann; locks x; STATUS")
        assert peer.hear() == ["error internal"] and peer.hear_until_closed() == b""
        wait_for(lambda: server.connect().ask("user ann; locks x; LOCK")[1] == "locked 1", "the server to serve on")


@pytest.mark.parametrize("moment", ["accept_silent", "poll_until"])
def test_those_who_have_connected_are_answered_if_their_requests_come_while_the_server_ends(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel shows them to nobody before that."""
    server = LockServer("127.0.0.1", 0)
    peers = [Peer(server.addresses[0]) for _ in range(30)]
    silent = set(peers)
    real = getattr(acceptor, moment)

    def ask_before(*arguments: Any) -> Any:
        for peer in silent:
            peer.say("user u; locks x; LOCK")
        silent.clear()
        return real(*arguments)

    monkeypatch.setattr(acceptor, moment, ask_before)
    server.close()
    for peer in peers:
        with closing(peer):
            assert peer.hear_until_closed() != b""
