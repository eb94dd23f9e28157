"""Several lockerd of one lock space on a real etcd: one serves, and when it goes another one has all of its locks."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, TypeVar

import pytest

from ipclocker.lock.client.ping import ping_hosts
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.snapshot import SERVES, STANDS_BY

from ...support.etcd import Etcd, running_etcd
from ...support.replicas import TTL, Replica, Replicas, free_port
from ...support.waiting import DEADLINE, wait_for

ANN, BOB = "user ann; session a; locks x; ", "user bob; session b; locks x; "
UNTOLD = {b"", b"error not_leader\n\n\n"}  # what those hear whose request came too late, or was not read any more
ASKS = {
    "RENEW": "session a; RENEW x {}",
    "CHECK": "session a; CHECK x {}",
    "again": ANN + "LOCK",
    "STATUS": ANN + "STATUS",
}

T = TypeVar("T")


@pytest.fixture
def replicas(etcd: Etcd, tmp_path: Path) -> Iterator[Replicas]:
    with Replicas(etcd, tmp_path) as replicas:
        yield replicas


def take(server: Replica, words: str = ANN) -> int:
    """The token of a lock that is granted at once."""
    return int(server.ask(f"{words} token 1; LOCK")[-1].split()[1])


def of_leader(replicas: Replicas, ask: Callable[[Replica], T]) -> T:
    """What the server says that leads by now; one whose term has just ended may hang up, or say so."""
    found: list[T] = []

    def try_it() -> bool:
        with contextlib.suppress(ConnectionError, EOFError, ValueError, IndexError):
            found.append(ask(replicas.leader()))
        return bool(found)

    wait_for(try_it, "an answer of the leader")
    return found[0]


def take_again(replicas: Replicas) -> int:
    """The token of ann's lock, from the server that leads by now."""
    return of_leader(replicas, take)


def test_one_serves_and_the_other_refuses_clients_and_keeps_its_port(replicas: Replicas) -> None:
    leader = replicas.leader()
    (standby,) = (replica for replica in replicas.all if replica is not leader)
    assert not standby.serves()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use") as caught:
            thief.bind(("127.0.0.1", standby.port))
            thief.listen()
        assert caught.value.errno == errno.EADDRINUSE
    assert standby.has_logged(rf"stands by: \S+ \({re.escape(leader.address)}\) serves")
    assert leader.has_logged("serves the lock space in etcd at .*, under ipclocker/")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_when_the_leader_goes_another_has_all_locks_and_greater_tokens(replicas: Replicas, number: int) -> None:
    leader = replicas.leader()
    first = take(leader, ANN + "timeout 3600;")
    lease = take(leader, "user eve; session e; locks y; lease 1; timeout 3600;")
    assert leader.ask("user zoe; locks z; LOCK")[1] == "locked 1" and leader.ask("user zoe; locks z; UNLOCK")
    if number == signal.SIGHUP:
        leader.send_signal(number)
        wait_for(lambda: leader.log().count("lockerd 1") == 2, "its new start")
        follower = replicas.leader()
    else:
        leader.kill(number)
        follower = replicas.leader(other_than=leader)
    assert follower.holders() == {"x": "ann", "y": "eve"}
    assert follower.ask(f"CHECK x {first}") == ["current 1"]
    assert follower.ask(f"RENEW y {lease}") == [f"renewed y {lease}"]
    assert follower.ask("user bob; session b; locks x; LOCK") == ["owner ann", "locked 0"]
    assert take(follower, "user bob; session b; locks w;") > lease > first
    assert follower.ask(ANN + "UNLOCK")[1] == "locked 0"
    wait_for(lambda: "x" not in follower.holders(), "the end of its reservation")


def test_a_waiter_that_comes_back_has_its_place(replicas: Replicas) -> None:
    leader = replicas.leader()
    take(leader)
    leader.kill()
    follower = replicas.leader(other_than=leader)
    new, old = follower.connect(), follower.connect()
    new.say(BOB + "block 1; LOCK")
    assert new.hear_line() == "print_waiting ann"
    follower.ask(ANN + "UNLOCK")
    old.say("user eve; session e; locks x; block 1; waited 60; LOCK")
    assert old.hear_line().startswith("print_waiting ")
    assert old.hear()[:2] == ["print_obtained", "owner eve"]


@pytest.mark.parametrize("way", ["SIGTERM", "SIGHUP", "revoked"])
def test_a_classic_waiter_is_told_before_its_connection_ends(replicas: Replicas, way: str) -> None:
    """Its Perl takes the bare end for the grant."""
    leader = replicas.leader()
    take(leader)
    waiter = leader.connect()
    waiter.say("user bob; locks x; block 1; LOCK")
    assert waiter.hear_line() == "print_waiting ann"
    if way == "revoked":
        revoke_term(replicas.etcd)
    else:
        leader.send_signal(getattr(signal, way))
    error = "not_leader" if way == "revoked" else "server_ended"
    assert waiter.hear_until_closed().decode().split("\n")[0] == f"error {error}"


@pytest.mark.parametrize("ask", ASKS)
def test_after_the_lease_was_revoked_nobody_is_told_that_he_holds_a_lock(replicas: Replicas, ask: str) -> None:
    """What anybody can do who reaches an etcd without certificates, and what old ones do by themselves."""
    leader = replicas.leader()
    token = take(leader)
    peers = [leader.connect() for _ in range(20)]
    revoke_term(replicas.etcd)
    for peer in peers:
        peer.say(ASKS[ask].format(token))
    assert {peer.hear_until_closed() for peer in peers} <= UNTOLD
    assert take_again(replicas) == token


def test_a_batch_of_a_term_that_is_over_is_not_written(replicas: Replicas) -> None:
    leader = replicas.leader()
    take(leader)
    peers = [leader.connect() for _ in range(20)]
    revoke_term(replicas.etcd)
    for number, peer in enumerate(peers):
        peer.say(f"user u{number}; session s; locks l{number}; LOCK")
    assert {peer.hear_until_closed() for peer in peers} <= UNTOLD
    assert of_leader(replicas, Replica.holders) == {"x": "ann"}


def test_a_leader_that_stood_still_says_nothing_that_is_over(replicas: Replicas) -> None:
    leader = replicas.leader()
    token = take(leader)
    peer = leader.connect()
    leader.send_signal(signal.SIGSTOP)
    follower = replicas.leader(other_than=leader)
    assert follower.ask(ANN + "UNLOCK")[1] == "locked 0"
    wait_for(lambda: follower.ask(BOB + "LOCK")[1] == "locked 1", "the lock to be granted to another")
    peer.say(f"CHECK x {token}; RENEW x {token}; {ANN} LOCK")
    leader.send_signal(signal.SIGCONT)
    assert peer.hear_until_closed() == b""
    wait_for(lambda: not leader.serves(), "its step down")
    assert follower.holders() == {"x": "bob"}


def test_without_etcd_nothing_is_granted_and_all_is_there_when_it_is_back(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd") as etcd, Replicas(etcd, tmp_path / "logs", 1) as replicas:
        leader = replicas.leader()
        token = take(leader)
        peer, information = leader.connect(), leader.connect()
        (member,) = etcd.members
        member.stop()
        assert information.ask("session i; locks x; STATUS") == ["owner ann", "locked 0"]  # which tells nobody a hold
        peer.say("user eve; session e; locks y; LOCK")
        assert peer.hear_until_closed() == b""
        wait_for(lambda: not leader.serves(), "its step down")
        member.go_on()
        again = replicas.leader()
        assert again is leader
        assert again.ask(f"CHECK x {token}") == ["current 1"]
        assert set(again.holders()) - {"y"} == {"x"}  # what was asked for may have been written


def test_an_etcd_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    with Replica(tmp_path / "logs", [f"http://127.0.0.1:{port}"], waits=False) as early:
        wait_for(lambda: early.has_logged("waits for etcd: .*refused"), "its word")
        assert not early.serves()
        early.kill(signal.SIGTERM)
        assert early.process.returncode == 0


def test_a_leader_that_went_with_its_etcd_unreachable_ends_soon(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd") as etcd, Replicas(etcd, tmp_path / "logs", 1) as replicas:
        leader = replicas.leader()
        take(leader)
        etcd.members[0].stop()
        begin = time.monotonic()
        assert leader.kill(signal.SIGTERM) == 0
        assert time.monotonic() - begin < TTL + DEADLINE / 4
        etcd.members[0].go_on()


def test_who_is_cut_off_without_an_answer_is_not_granted_the_lock_behind_his_back(replicas: Replicas) -> None:
    """What ends with a term is not released: its owner finds it again, under the same session."""
    leader = replicas.leader()
    waiter = leader.connect()
    token = take(leader)
    waiter.say(BOB + "token 1; block 1; LOCK")
    assert waiter.hear_line() == "print_waiting ann"
    revoke_term(replicas.etcd)
    leader.connect().say(ANN + "UNLOCK")
    assert waiter.hear_until_closed() == b""
    assert take_again(replicas) == token


def test_two_versions_serve_one_lock_space_during_an_upgrade(etcd: Etcd, tmp_path: Path) -> None:
    with Replicas(etcd, tmp_path) as replicas:
        newer = Replica(tmp_path, etcd.urls, before="import ipclocker.version as version; version.VERSION = '99.1'")
        replicas.all.append(newer)
        token = take(replicas.leader())
        for older in replicas.all[:2]:
            older.kill(signal.SIGTERM)
        assert replicas.leader() is newer
        assert newer.ask(f"CHECK x {token}") == ["current 1"]
        replicas.add()
        newer.kill(signal.SIGTERM)
        assert replicas.leader().ask(f"CHECK x {token}") == ["current 1"]


def test_a_newer_format_is_left_to_newer_versions(etcd: Etcd, tmp_path: Path) -> None:
    module = "ipclocker.lock.storage.etcd"
    raises = (
        f"import {module} as etcd, {module}_prefix as prefix; prefix.FORMAT = 3; etcd.record_format = lambda record: 3"
    )
    with Replicas(etcd, tmp_path, 1) as replicas:
        older = replicas.leader()
        token = take(older)
        newer = Replica(tmp_path, etcd.urls, before=raises)
        replicas.all.append(newer)
        older.kill(signal.SIGTERM)
        assert replicas.leader().ask(f"CHECK x {token}") == ["current 1"]
        assert replicas.leader().ask("user u; locks new; LOCK")[1] == "locked 1"
        with Replica(tmp_path, etcd.urls, waits=False) as late:
            assert late.process.wait(DEADLINE) == 74
            assert late.log().strip().endswith("are of format 3, and this lockerd knows 2: use a newer lockerd")


def test_one_that_stands_by_can_not_serve_a_newer_format(replicas: Replicas) -> None:
    leader = replicas.leader()
    (standby,) = (replica for replica in replicas.all if replica is not leader)
    replicas.etcd.put("ipclocker/format", "3")
    leader.kill()
    wait_for(lambda: standby.has_logged("are of format 3, and this lockerd knows 2: use a newer"), "its word")
    assert not standby.serves()
    replicas.etcd.put("ipclocker/format", "1")
    assert replicas.leader() is standby


def test_two_on_one_host_are_told_apart(replicas: Replicas) -> None:
    """And one of an older version, whose key has its host's name alone, is read as well."""
    told = {"host": "old", "addresses": ["10.0.0.9:1751"], "version": "0"}
    replicas.etcd.put("ipclocker/member/old", json.dumps(told))
    ports = ":".join(f"[127.0.0.1]:{replica.port}" for replica in replicas.all)

    def states() -> set[str]:
        return {host.state for host in ping_hosts(LockSettings(host=ports, connect_tries=1))}

    wait_for(lambda: states() == {SERVES, STANDS_BY}, "both to be known")
    members = [line for line in replicas.leader().ask("space 1; STATUS") if line.startswith("member ")]
    assert len(members) == 3 and "member old 10.0.0.9:1751" in members
    replicas.etcd.delete("ipclocker/member/old")


def test_locks_that_are_shared_or_kept_are_so_under_the_next_leader(replicas: Replicas) -> None:
    leader = replicas.leader()
    peer = leader.connect()
    for user in ("ann", "bob"):
        assert "slots 3" in peer.ask(f"user {user}; session s; locks shared; slots 3; token 1; LOCK")
    assert "minhold 600" in peer.ask("user cy; session s; locks kept; slots 1; minhold 600; LOCK")
    assert peer.ask("UNLOCK") == ["owner cy", "locked 0"]
    assert replicas.etcd.keys("ipclocker/format") == {"ipclocker/format": "2"}
    leader.kill()
    after = replicas.leader()
    info = after.ask("LOCK_INFO shared kept")
    assert [line.split()[1] for line in info if line.startswith("held ")] == ["shared", "shared", "kept"]
    assert "kept 1" in info[2] and 500 < float(info[2].partition(" left ")[2].split()[0]) <= 600
    assert after.ask("user dee; session s; locks kept; LOCK") == ["owner cy", "locked 0"]
    wait_for(lambda: "locked 1" in after.ask("user dee; session s; locks shared; slots 3; LOCK"), "the third")
    assert "locked 1" not in after.ask("user eve; session s; locks shared; slots 3; LOCK")


def test_many_terms(replicas: Replicas) -> None:
    token = take(replicas.leader())
    for _ in range(5):
        revoke_term(replicas.etcd)
        assert take_again(replicas) == token
    assert replicas.leader().ask(ANN + "UNLOCK")[1] == "locked 0"


def revoke_term(etcd: Etcd) -> None:
    """End the lease that the key `leader` is bound to."""
    (entry,) = etcd.entries("ipclocker/leader")
    etcd.revoke(entry["lease"])
