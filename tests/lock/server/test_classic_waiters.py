"""Classic clients whose connection the server ends: each is told an error first, since its end alone means the grant.

The classic lockersh does not look at what lock() returned when the connection ended, and runs its command; an `error`
line makes it stop (PROTOCOL.md).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from ipclocker.lock.server import request_handler
from ipclocker.lock.server.request_handler import RequestHandler

from ...support.servers import Lockerd, Peer, Served, ThreadServer
from ...support.waiting import wait_for

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_same_from_a_process_that_is_told_to_end_or_to_start_again(number: int) -> None:
    with Lockerd() as server:
        hold(server)
        peer = waiting(server)
        server.process.send_signal(number)
        assert peer.hear() == ERROR and peer.hear_until_closed() == b""


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
    handlers: dict[bytes, Callable[[RequestHandler, list[bytes]], object]] = {**request_handler._HANDLERS}
    handlers[b"STATUS"] = _fail
    monkeypatch.setattr(request_handler, "_HANDLERS", handlers)
    with ThreadServer() as server:
        peer = server.connect()
        if first:  # the client has a connection that stays
            peer.say(first)
            assert peer.hear_line().startswith("version")
            peer.hear_line()
        peer.say("user ann; locks x; STATUS")
        assert peer.hear() == ["error internal"] and peer.hear_until_closed() == b""
        wait_for(lambda: server.connect().ask("user ann; locks x; LOCK")[1] == "locked 1", "the server to serve on")
