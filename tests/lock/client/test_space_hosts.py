"""In which order and how often the hosts of a lock space are asked, on a clock that the test moves; their names."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from ipclocker import ServerUnavailable
from ipclocker.lock.client import settings as settings_module
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connection import ConnectionLost, ServerConnection, wait_ready
from ipclocker.lock.client.keepalive import KeepAlive
from ipclocker.lock.client.lease import Lease
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.client.space_hosts import SpaceHosts
from ipclocker.lock.client.steps import run
from ipclocker.lock.wire import replies
from ipclocker.net.address import Address, Host, find_addresses

from ...support.waiting import DEADLINE, wait_for
from .test_acquisition import Ear
from .test_keepalive import REFUSES, SILENT, UP, World

TTL = 5


class Hosts(World):
    """One lock space, which is served at one port at a time, and others that are silent or refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.serving = 1
        self.silent: set[int] = set()
        self.tried: list[tuple[float, int]] = []
        self.server.service.space_lines = lambda: replies.space("5a", TTL)

    def connect(self, address: Address, deadline: float = inf, wait: object = None) -> ServerConnection:
        port = address.sockaddr[1]
        assert isinstance(port, int)
        self.tried.append((self.now, port))
        self.state = UP if port == self.serving else SILENT if port in self.silent else REFUSES
        return super().connect(address, deadline, wait)

    def stop(self) -> None:
        """Nobody serves any more."""
        self.serving = 0
        self.become(REFUSES)

    def rounds(self) -> list[list[tuple[float, int]]]:
        """What was tried since the first time that it failed, by the time from one try to the next."""
        found: list[list[tuple[float, int]]] = []
        for when, port in self.tried:
            if found and when - found[-1][-1][0] < 0.05:
                found[-1].append((when, port))
            else:
                found.append([(when, port)])
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with monkeypatch.context() as patch:
        world = Hosts()
        patch.setattr(ServerConnection, "connecting", world.connecting)
        patch.setattr(time, "monotonic", lambda: world.now)
        yield world


def holder(world: Hosts, **parameters: Any) -> LockAcquisition:
    hosts = [f"[127.0.0.1]:{port}" for port in (1, 2, 3)]
    acquisition = LockAcquisition(LockSettings(host=hosts, lock="x", user="me", **parameters), Ear(), world.wait)
    assert acquisition.acquire(True, inf)
    world.tried.clear()
    return acquisition


def serve_at(world: Hosts, port: int) -> None:
    world.serving = port


@pytest.mark.parametrize("away", [0.3, 2.0, 8.0, 14.0])
@pytest.mark.parametrize("lease", [45.0, 0.0])
def test_a_holder_finds_whoever_serves_its_space(world: Hosts, away: float, lease: float) -> None:
    acquisition = holder(world, **({"lease": lease} if lease else {"timeout": 0}))
    lease_of = Lease(lease, acquisition.grants[0].asked) if lease else None
    keepalive = KeepAlive(acquisition.connector, acquisition.grants, lease_of)
    gone = world.now + 14.9  # just before it is renewed
    world.at(gone - 1000, world.stop)
    world.at(gone - 1000 + away, lambda: serve_at(world, 3))
    while world.now < gone + away + 4:
        keepalive.step(world.now + 1)
        assert keepalive.loss is None and (lease_of is None or world.now < lease_of.stop_at)
    rounds = world.rounds()
    assert [port for _, port in rounds[0]] in ([1, 2, 3], [1, 2, 3, 1]) or away < 0.3
    assert all([port for _, port in each] == [1, 2, 3] for each in rounds)
    pauses = [later[0][0] - earlier[-1][0] for earlier, later in zip(rounds, rounds[1:])]
    assert max(pauses) <= 2 and (lease == 0 or max(pauses) <= lease / 30)
    assert acquisition.connector.address is not None and acquisition.connector.address.sockaddr[1] == 3
    assert rounds[-1][-1][0] <= gone + away + 2.1
    assert lease_of is None or lease_of.sent >= gone + away - 15


def test_a_lease_outlasts_a_host_that_is_switched_off(world: Hosts) -> None:
    """It is silent from its last renewal on, and another one serves ten seconds later."""
    acquisition = holder(world, lease=45)
    lease = Lease(45, acquisition.grants[0].asked)
    keepalive = KeepAlive(acquisition.connector, acquisition.grants, lease)

    def go() -> None:
        world.silent, world.serving = {1, 2}, 0
        world.become(SILENT)

    world.at(0.5, go)
    world.at(10.5, lambda: serve_at(world, 3))
    while world.now < 1060:
        keepalive.step(min(lease.stop_at, world.now + 1))
        assert world.now < lease.stop_at and keepalive.loss is None
    assert world.server.held() == {b"x": b"me"}


def test_a_release_outlasts_the_election_of_another_server(world: Hosts) -> None:
    acquisition = holder(world, timeout=0)
    world.stop()
    world.at(2.9 * TTL, lambda: serve_at(world, 2))
    assert acquisition.release() and world.server.held() == {}


def test_a_release_that_may_take_so_long_only_is_over_then(world: Hosts) -> None:
    acquisition = holder(world, timeout=0)
    world.stop()
    begin = world.now
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:1: .*; 127\.0\.0\.1:2: .*; 127\.0\.0\.1:3: "):
        acquisition.release(within=1.0)
    assert world.now - begin <= 1.1
    assert acquisition.may_hold
    with pytest.raises(ServerUnavailable):
        acquisition.release()
    assert world.now - begin <= 1.1 + 3 * TTL


def test_a_lock_is_renewed_by_whoever_serves_its_space(world: Hosts) -> None:
    acquisition = holder(world, timeout=0)
    token = acquisition.grants[0].token
    world.stop()
    world.at(20, lambda: serve_at(world, 2))
    assert acquisition.acquire(True, inf) and acquisition.grants[0].token == token


def test_who_waits_is_back_in_the_queue_with_all_the_time_that_it_has_waited(world: Hosts) -> None:
    other = world.server.connect()
    other.say("user other; locks x; LOCK")
    hosts = [f"[127.0.0.1]:{port}" for port in (1, 2, 3)]
    acquisition = LockAcquisition(LockSettings(host=hosts, lock="x", user="me", timeout=0), Ear(), world.wait)
    since: list[float] = []
    for begin, port in ((10, 2), (30, 3), (50, 1)):
        world.at(begin, world.stop)
        world.at(begin + 6, lambda port=port: serve_at(world, port))  # type: ignore[misc]
        world.at(begin + 9, lambda: since.extend(each.queued_at for each in world.server.service.table.waiters(b"x")))
    world.at(60, lambda: other.say("UNLOCK"))
    assert acquisition.acquire(True, inf) and world.now == 1060
    assert since == pytest.approx([1000] * 3, abs=0.01)


# Names


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the names of hosts stand for; `silent` is never answered before the end of the test."""
    known: dict[str, str] = {}
    over = threading.Event()

    def find(host: str, *words: Any) -> list[Address]:
        if host == "silent":
            over.wait(DEADLINE)
        if host in ("silent", "unknown"):
            raise ServerUnavailable(f"the host '{host}' is not known")
        return find_addresses(known.get(host, host), *words)

    monkeypatch.setattr(settings_module, "find_addresses", find)
    yield known
    over.set()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "ipclocker look-up"])


def asked(hosts: SpaceHosts, within: float = DEADLINE) -> list[str]:
    """All who are asked in one round."""
    found: list[str] = []
    while True:
        try:
            found.append(str(run(hosts.next(time.monotonic() + within), wait_ready)))
        except ConnectionLost as problem:
            assert problem.errno == errno.EHOSTUNREACH and hosts.are_asked
            return found


def test_names_are_looked_up_when_it_is_their_turn(resolver: dict[str, str]) -> None:
    resolver.update(first="127.0.0.1", second="127.0.0.2", again="127.0.0.2")
    settings = LockSettings(host="first:second:127.0.0.3:unknown:again", port=9)
    (last,) = settings.addresses(Host("first"))
    hosts = SpaceHosts(settings, last, Host("first"), others=True)
    assert hosts.are_several
    assert asked(hosts) == ["127.0.0.1:9", "127.0.0.2:9", "127.0.0.3:9"]


def test_a_silent_name_server_holds_up_one_try_only(resolver: dict[str, str]) -> None:
    settings = LockSettings(host="silent:127.0.0.3", port=9)
    (last,) = settings.addresses(Host("127.0.0.2"))
    assert asked(SpaceHosts(settings, last, None, others=True), within=0.1) == ["127.0.0.2:9", "127.0.0.3:9"]


def test_one_that_does_not_tell_its_space_is_the_only_one(resolver: dict[str, str]) -> None:
    settings = LockSettings(host="silent:127.0.0.3", port=9)
    (last,) = settings.addresses(Host("127.0.0.2"))
    hosts = SpaceHosts(settings, last, None, others=False)
    assert not hosts.are_several and asked(hosts) == ["127.0.0.2:9"]
