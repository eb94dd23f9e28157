"""Leases and what their holders are told, through a server: renewed, run out, looked at, recalled, broken."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipclocker.pid.async_client import AsyncPidClient
from ipclocker.process.identity import identify

from ...support.servers import Peer, ThreadServer
from ...support.waiting import wait_for

BOB_WAITS = "user bob; locks x; block 1; LOCK"


def leased(server: ThreadServer, seconds: float = 0.3, more: str = "") -> tuple[Peer, str]:
    """A client that holds x under a lease, and its token."""
    peer = server.connect()
    answer = peer.ask(f"user ann; session s; token 1; tell 1; lease 1; timeout {seconds}; {more} locks x; LOCK")
    assert answer[1] == "locked 1"
    return peer, answer[-1].split()[1]


def info(server: ThreadServer, name: str = "x") -> list[dict[str, str]]:
    """What LOCK_INFO says of a lock: a dictionary for the holder, and one for each waiter."""
    lines = [line.split() for line in server.ask(f"LOCK_INFO {name}")]
    return [{"": words[0], "name": words[1], **dict(zip(words[2::2], words[3::2]))} for words in lines]


@contextmanager
def process_of(seconds: str = "100") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process, and the variables that tell who it is."""
    with subprocess.Popen(["sleep", seconds]) as process:
        who = identify(process.pid)
        yield (
            process,
            f"autounlock 1; pid {process.pid}; hostname {socket.gethostname()}; start {who.start}; boot {who.boot}; "
            f"pidns {who.pidns};",
        )
        process.kill()


def test_a_lease_that_nobody_renews_runs_out_and_its_holder_is_told() -> None:
    with ThreadServer() as server:
        holder, token = leased(server)
        waiter = server.connect()
        waiter.say(BOB_WAITS)
        assert waiter.hear_line() == "print_waiting ann"
        assert holder.hear_line() == f"lost x {token}"
        assert waiter.hear_line() == "print_obtained"
        assert holder.ask(f"RENEW x {token}") == ["error lost"]


def test_a_lease_that_is_renewed_goes_on() -> None:
    with ThreadServer() as server:
        holder, token = leased(server, 1.0)
        for _ in range(20):
            assert holder.ask(f"RENEW x {token}") == [f"renewed x {token}"]
            server.turn()
        assert info(server)[0]["lease"] == "1"
        assert 0 < float(info(server)[0]["left"]) <= 1


def test_a_lease_that_has_run_out_stays_while_its_process_is_known_to_live() -> None:
    with ThreadServer() as server, process_of() as (process, who):
        holder, token = leased(server, 0.2, who)
        wait_for(lambda: info(server)[0].get("outlived") == "1", "the lease to run out")
        waiter = server.connect()
        waiter.say(BOB_WAITS)
        assert waiter.hear_line() == "print_waiting ann"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert waiter.hear_line() == "print_obtained"
        assert holder.hear_line() == f"lost x {token}"


def test_a_lease_that_was_outlived_can_be_renewed_and_is_one_again() -> None:
    with ThreadServer() as server, process_of() as (_, who):
        holder, token = leased(server, 0.2, who)
        wait_for(lambda: info(server)[0].get("outlived") == "1", "the lease to run out")
        assert holder.ask(f"RENEW x {token}") == [f"renewed x {token}"]
        assert "outlived" not in info(server)[0]
        wait_for(lambda: info(server)[0].get("outlived") == "1", "the lease to run out again")


def test_a_lease_ends_at_once_if_its_process_is_gone_and_after_silence_if_nobody_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def ask(self: object, address: str, process: object, answered: object, **parameters: object) -> None:
        asked.append(address)
        answered(None)  # type: ignore[operator]

    monkeypatch.setattr(AsyncPidClient, "ask", ask)
    with ThreadServer() as server:
        holder, token = leased(server, 0.2, "autounlock 1; pid 7; hostname elsewhere; start 5; boot other; pidns 9;")
        assert holder.hear_line() == f"lost x {token}"
        assert asked[-3:] == ["127.0.0.1"] * 3


def test_a_classic_hold_time_forces_the_lock_open_though_its_process_lives() -> None:
    with ThreadServer() as server, process_of() as (_, who):
        peer = server.connect()
        peer.ask(f"user ann; timeout 0.2; {who} locks x; LOCK")
        wait_for(lambda: not server.holders(), "the end of the hold time")


def test_a_lease_that_is_recalled_is_not_renewed_and_ends_when_it_is_given_back() -> None:
    with ThreadServer() as server:
        holder, token = leased(server, 30)
        assert server.ask("locks x; RECALL") == ["print_recalled ann", "owner ann", "locked 0"]
        assert holder.hear_line() == f"recall x {token}"
        assert holder.ask(f"RENEW x {token}") == ["error recalled"]
        assert holder.ask(f"CHECK x {token}") == ["current 1"]
        assert info(server)[0]["recalled"] == "1"
        assert holder.ask("UNLOCK") == ["owner ", "locked 0"]
        assert holder.hears_nothing()


def test_a_lease_that_is_recalled_from_nobody_runs_out() -> None:
    with ThreadServer() as server:
        holder, _ = leased(server, 0.5)
        holder.close()
        server.ask("locks x; RECALL")
        wait_for(lambda: not server.holders(), "the end of the lease")


def test_a_recall_breaks_what_is_no_lease() -> None:
    with ThreadServer() as server:
        holder = server.connect()
        token = holder.ask("user ann; token 1; tell 1; locks x; LOCK")[-1].split()[1]
        assert server.ask("locks x y; RECALL") == ["print_broke ann", "owner ", "locked 0"]
        assert holder.hear_line() == f"lost x {token}"


def test_whoever_has_asked_for_it_hears_at_once_of_a_lock_that_is_broken() -> None:
    with ThreadServer() as server:
        holder, other = server.connect(), server.connect()
        token = holder.ask("user ann; token 1; locks x; LOCK")[-1].split()[1]
        silent = holder
        assert other.ask(f"tell 1; CHECK x {token}") == ["current 1"]  # the holder came back on another connection
        assert server.ask("locks x; BREAK_LOCK")[0] == "print_broke ann"
        assert other.hear_line() == f"lost x {token}"
        server.turn()
        assert silent.hears_nothing()


def test_what_its_owner_gives_back_is_not_lost_whichever_connection_says_so() -> None:
    with ThreadServer() as server:
        holder = server.connect()
        holder.ask("user ann; session s; token 1; tell 1; locks x; LOCK")
        assert server.ask("user ann; session s; locks x; UNLOCK") == ["owner ", "locked 0"]
        server.turn()
        assert holder.hears_nothing()


def test_news_does_not_come_within_an_answer(tmp_path: Path) -> None:
    """A long list is written in pieces, between which the lock may be lost."""
    with ThreadServer(port=None, path=str(tmp_path / "lockerd")) as server:
        many = server.connect()
        for start in range(0, 30_000, 1000):
            names = [f"{'n' * 40}{number}" for number in range(start, start + 1000)]
            many.say("user many; " + "; ".join(f"locks {name}; LOCK" for name in names))
            for _ in names:
                many.hear()
        holder = server.connect()
        token = holder.ask("user ann; token 1; tell 1; locks x; LOCK")[-1].split()[1]
        holder.say("LOCK_LIST")
        assert holder.hear_line().startswith("lock ")
        assert server.ask("locks x; BREAK_LOCK")[0] == "print_broke ann"
        answer = holder.hear()
        assert [line for line in answer if not line.startswith("lock ")] == []
        assert len(answer) >= 29_999
        assert holder.hear_line() == f"lost x {token}"


def test_info_tells_all_of_holder_and_waiters() -> None:
    with ThreadServer() as server, process_of() as (process, who):
        leased(server, 30, f"{who} command make%20all;")
        waiter = server.connect()
        waiter.say("command c; " + BOB_WAITS)
        waiter.hear_line()
        held, waits = info(server)
        assert (held[""], held["user"], held["pid"], held["command"], held["lease"]) == (
            "held",
            "ann",
            str(process.pid),
            "make%20all",
            "30",
        )
        assert held["address"] == "127.0.0.1"
        assert (waits[""], waits["name"], waits["user"], waits["command"]) == ("waiter", "x", "bob", "c")
        assert 0 <= float(waits["age"]) < 30 > float(held["age"]) >= 0
        assert server.ask("LOCK_INFO nothing") == []
        assert len(server.ask("LOCK_INFO")) == 2


def test_a_lease_does_not_end_with_its_process_but_when_it_has_run_out() -> None:
    """What the process has started may still have to be ended."""
    with ThreadServer() as server, process_of() as (process, who):
        leased(server, 1.5, who)
        process.kill()
        process.wait()
        server.turn()
        waiter = server.connect()
        waiter.say(BOB_WAITS)
        assert waiter.hear_line() == "print_waiting ann"
        assert server.ask(f"DEAD_PID {socket.gethostname()} {process.pid}; locks x; STATUS")[-1] == "locked 0"
        assert 0 < float(info(server)[0]["left"]) <= 1.5
        assert waiter.hear_line() == "print_obtained"


def test_a_waited_lease_that_is_not_confirmed_ends_when_it_has_run_out() -> None:
    with ThreadServer() as server, process_of() as (_, who):
        holder, waiter, next_one = server.connect(), server.connect(), server.connect()
        holder.ask("user ann; locks x; LOCK")
        waiter.say(f"user bob; token 1; lease 1; timeout 0.3; {who} locks x; block 1; LOCK")
        assert waiter.hear_line() == "print_waiting ann"
        next_one.say("user eve; locks x; block 1; LOCK")
        assert next_one.hear_line() == "print_waiting ann"
        holder.ask("UNLOCK")
        assert next_one.hear_line() == "print_obtained"


def test_a_lease_that_was_recalled_is_not_granted_to_its_owner_again() -> None:
    with ThreadServer() as server:
        holder, token = leased(server, 30)
        server.ask("locks x; RECALL")
        assert holder.hear_line() == f"recall x {token}"
        assert holder.ask("LOCK") == ["error recalled"]
        assert float(info(server)[0]["left"]) <= 30
