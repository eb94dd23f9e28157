"""Several locks that are wanted together: all or none, in one order, whatever breaks in between."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from ipclocker import Locker, LockLost
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connection import ServerConnection
from ipclocker.lock.client.settings import LockSettings

from ...support.fake_servers import ClassicServer
from ...support.memory import MemoryNetwork, MemoryPeer, MemoryServer
from ...support.servers import ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for
from .test_acquisition import Ear
from .test_keepalive import REFUSES, SILENT, UP, World, new_world


class Scene:
    """A server in memory; `waits` are done one after the other, each when somebody waits."""

    def __init__(self, patch: pytest.MonkeyPatch, break_at: int = -1, after: bool = False) -> None:
        self.server = MemoryServer()
        self.network = MemoryNetwork(self.server, break_at, after)
        self.ear = Ear()
        self.order: list[str] = []
        patch.setattr(ServerConnection, "connecting", self.network.connecting)

    def acquisition(self, names: str = "b c a", **parameters: Any) -> LockAcquisition:
        given = {"host": "127.0.0.1", "port": 1, "connect_delay": 0.0, "user": "me", "timeout": 0, **parameters}
        return LockAcquisition(LockSettings(lock=names.split(), all=True, **given), self.ear, self.network.wait)

    def holder(self, name: str) -> MemoryPeer:
        peer = self.server.connect()
        assert peer.ask(f"user other; locks {name}; LOCK")[1] == "locked 1"
        return peer

    def is_free(self, names: str = "abc") -> bool:
        """Nobody holds any of them, and nobody is in their queues."""
        return all(self.server.connect().ask(f"user p; locks {n}; LOCK; UNLOCK")[1] == "locked 1" for n in names) and (
            self.server.held() == {}
        )


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    gc.collect()
    with monkeypatch.context() as patch:
        yield new_world(patch)


def test_all_are_held_in_the_order_of_their_names_each_with_its_token(scene: Scene) -> None:
    acquisition = scene.acquisition()
    assert acquisition.acquire(True, inf)
    assert [held.name for held in acquisition.grants] == [b"a", b"b", b"c"]
    tokens = [held.token or 0 for held in acquisition.grants]
    assert tokens == sorted(tokens)
    assert [scene.server.service.table.held[held.name].token for held in acquisition.grants] == tokens
    assert acquisition.acquire(True, inf) and [held.token for held in acquisition.grants] == tokens, "they are renewed"
    assert acquisition.release() and scene.is_free()


def test_one_name_twice_is_one_lock(scene: Scene) -> None:
    acquisition = scene.acquisition("a b a")
    assert acquisition.acquire(True, inf) and len(acquisition.grants) == 2
    assert acquisition.release() and scene.is_free()


@pytest.mark.parametrize("busy", ["a", "b", "c"])
def test_none_is_held_if_one_is_not_to_be_had(scene: Scene, busy: str) -> None:
    holder = scene.holder(busy)
    acquisition = scene.acquisition()
    assert not acquisition.acquire(False, inf)
    assert acquisition.grants == () and (acquisition.busy, acquisition.holder) == (busy.encode(), "other")
    assert scene.server.held() == {busy.encode(): b"other"}
    assert not acquisition.acquire(True, inf), "this network's wait ends at once if there is nothing to come"
    assert scene.server.held() == {busy.encode(): b"other"}
    holder.say("UNLOCK")
    assert scene.is_free()


def test_it_waits_for_each_in_turn(scene: Scene) -> None:
    holders = {name: scene.holder(name) for name in "abc"}
    acquisition = scene.acquisition()

    def leave() -> None:
        name = scene.ear.heard[-1][len("waiting for ") :][0]
        assert scene.server.held() == {each.encode(): b"me" if each < name else b"other" for each in "abc"}, (
            "what comes first is held while another one is waited for"
        )
        holders[name].say("UNLOCK")

    scene.network.while_waiting = leave
    assert acquisition.acquire(True, inf)
    assert scene.ear.heard == [f"waiting for {name}: other" for name in "abc"] + ["obtained"]
    scene.server.pass_time(60)
    assert acquisition.release() and scene.is_free()


def test_two_in_opposite_orders_do_not_wait_for_each_other() -> None:
    with ThreadServer() as server:

        def work(names: list[str]) -> int:
            turns = 0
            lock = Locker(host="127.0.0.1", port=server.port, lock=names, all=True)
            for _ in range(40):
                with lock:
                    turns += set(server.holders()) == {"a", "b", "c"}
            return turns

        with in_thread(lambda: work(["a", "b", "c"])) as one, in_thread(lambda: work(["c", "b", "a"])) as two:
            pass
        assert one == [40] and two == [40] and server.holders() == {}


def test_what_was_lost_during_the_wait_is_got_again_in_the_order(scene: Scene) -> None:
    holder = scene.holder("c")
    acquisition = scene.acquisition()
    taken: list[MemoryPeer] = []

    def take() -> None:
        if not taken:  # "a", which is held by now, goes to somebody else, and "c" comes free
            scene.server.connect().say("locks a; BREAK_LOCK")
            taken.append(scene.holder("a"))
            holder.say("UNLOCK")
        else:
            assert scene.server.held() == {b"a": b"other"}, "nothing is held while an earlier one is waited for"
            taken[0].say("UNLOCK")

    scene.network.while_waiting = take
    assert acquisition.acquire(True, inf)
    assert scene.server.held() == {b"a": b"me", b"b": b"me", b"c": b"me"}
    tokens = [held.token or 0 for held in acquisition.grants]
    assert [scene.server.service.table.held[held.name].token for held in acquisition.grants] == tokens
    assert acquisition.release() and scene.is_free()


def test_all_are_renewed_or_all_are_got_anew(scene: Scene) -> None:
    acquisition = scene.acquisition()
    assert acquisition.acquire(True, inf)
    before = [held.token or 0 for held in acquisition.grants]
    scene.server.connect().say("locks b; BREAK_LOCK")
    other = scene.holder("b")
    assert not acquisition.acquire(False, inf) and scene.server.held() == {b"b": b"other"}
    other.say("UNLOCK")
    assert acquisition.acquire(False, inf) and min(held.token or 0 for held in acquisition.grants) > max(before)
    scene.server.connect().say("locks b; BREAK_LOCK")
    assert not acquisition.release(), "one of them was lost"
    assert scene.is_free()


@pytest.mark.parametrize("hold", [0.0, 600.0])
@pytest.mark.parametrize("busy", ["", "b", "abc"])
def test_a_connection_that_breaks_at_any_step_does_no_harm(busy: str, hold: float) -> None:
    def whole_life(step: int = -1, after: bool = False) -> int:
        with pytest.MonkeyPatch.context() as patch:
            scene = Scene(patch, step, after)
            holders = [scene.holder(name) for name in busy]
            scene.network.while_waiting = lambda: holders.pop(0).say("UNLOCK") if holders else None
            acquisition = scene.acquisition(timeout=hold)
            assert acquisition.acquire(True, inf)
            assert scene.server.held() == {b"a": b"me", b"b": b"me", b"c": b"me"}
            held = scene.server.service.table.held
            assert [grant.token for grant in acquisition.grants] == [
                held[grant.name].token for grant in acquisition.grants
            ]
            acquisition.release()
            acquisition.connector.close()
            assert scene.is_free(), f"a lock was left behind (step {step}, {after})"
            assert not any(sock.open for sock in scene.network.links)
            return scene.network.steps

    steps = whole_life()
    assert steps >= 8
    for step in range(steps):
        for after in (False, True):
            whole_life(step, after)


# With a lease, while another one is waited for


def waiting_claim(world: World, lease: float) -> LockAcquisition:
    given = LockSettings(host="127.0.0.1", port=1, lock=["a", "b"], all=True, lease=lease, user="me")
    return LockAcquisition(given, Ear(), world.wait)


def test_what_is_held_already_is_renewed_during_the_wait(world: World) -> None:
    other = world.server.connect()
    other.say("user other; locks b; LOCK")
    world.at(1000, lambda: other.say("UNLOCK"))
    acquisition = waiting_claim(world, 30)
    assert acquisition.acquire(True, inf)
    assert world.now == 2000 and [held.asked for held in acquisition.grants] == [2000, 2000]
    assert acquisition.grants[0].token == 2, "the very grant that it had at first"
    assert sum(sock.open for sock in world.links) == 1


@pytest.mark.parametrize("state", [REFUSES, SILENT])
def test_a_lease_that_is_lost_during_the_wait_is_got_again(world: World, state: str) -> None:
    other = world.server.connect()
    other.say("user other; locks b; LOCK")
    world.at(100, lambda: world.become(state))
    world.at(200, lambda: world.become(UP))
    world.at(1000, lambda: other.say("UNLOCK"))
    acquisition = waiting_claim(world, 30)
    assert acquisition.acquire(True, inf)
    assert world.server.held() == {b"a": b"me", b"b": b"me"}
    assert (acquisition.grants[0].token or 0) > 2
    assert all(held.asked == world.now for held in acquisition.grants)


def test_the_time_for_the_wait_is_for_all_of_them(world: World) -> None:
    for name in "ab":
        world.server.connect().say(f"user other; locks {name}; LOCK")
    world.at(50, lambda: world.server.connect().say("locks a; BREAK_LOCK"))
    acquisition = waiting_claim(world, 30)
    assert not acquisition.acquire(True, world.now + 100)
    assert world.now == pytest.approx(1100) and world.server.held() == {b"b": b"other"}


@pytest.mark.parametrize(("round_trip", "count"), [(0.04, 200), (0.08, 200), (0.8, 20)])
def test_taking_them_may_take_longer_than_the_lease(world: World, round_trip: float, count: int) -> None:
    world.round_trip = round_trip
    names = [f"n{number:03}" for number in range(count)]
    given = LockSettings(host="127.0.0.1", port=1, lock=names, all=True, lease=3)
    acquisition = LockAcquisition(given, Ear(), world.wait)
    for begin in range(1, 20):
        world.at(begin, lambda: bound.append(world.server.service.table.last_token))
    bound: list[int] = []
    assert acquisition.acquire(True, inf)
    assert len(world.server.held()) == count and world.server.service.table.last_token == count, "each was taken once"
    assert world.now - min(held.asked for held in acquisition.grants) < 1, "the command can begin"
    assert bound == sorted(bound) and acquisition.release() and world.server.held() == {}


def test_what_was_renewed_during_one_wait_is_not_lost_in_the_next(world: World) -> None:
    holders = {name: world.server.connect() for name in "bc"}
    for when, (name, holder) in enumerate(holders.items(), 1):
        holder.say(f"user other; locks {name}; LOCK")
        world.at(1000 * when, lambda holder=holder: holder.say("UNLOCK"))  # type: ignore[misc]
    given = LockSettings(host="127.0.0.1", port=1, lock=["a", "b", "c"], all=True, lease=30)
    acquisition = LockAcquisition(given, Ear(), world.wait)
    assert acquisition.acquire(True, inf)
    assert world.now == 3000 and [held.token for held in acquisition.grants] == [3, 4, 5]


@pytest.mark.parametrize("round_trip", [0.1, 0.8])
def test_the_wait_for_all_of_them_has_an_end_though_none_is_busy(world: World, round_trip: float) -> None:
    world.round_trip = round_trip
    names = [f"n{number:03}" for number in range(200)]
    given = LockSettings(host="127.0.0.1", port=1, lock=names, all=True, lease=3)
    acquisition = LockAcquisition(given, Ear(), world.wait)
    assert not acquisition.acquire(True, world.now + 10)
    assert 10 <= world.now - 1000 < 16 and world.server.held() == {} and acquisition.grants == ()


# Locker


def test_a_locker_of_several() -> None:
    with ThreadServer() as server:
        with Locker(host="127.0.0.1", port=server.port, lock=["b", "a"], all=True) as lock:
            assert set(server.holders()) == {"a", "b"} and lock.lock_name() == "a b"
            tokens = lock.tokens
            assert set(tokens) == {"a", "b"} and lock.token == tokens["a"]
        assert server.holders() == {} and lock.tokens == {}
        with pytest.raises(LockLost, match="'a b'"), lock:
            Locker(host="127.0.0.1", port=server.port, lock="b").break_lock()
        assert server.holders() == {}


def test_all_at_a_classic_server() -> None:
    with ClassicServer() as server:
        lock = Locker(host="127.0.0.1", port=server.port, connect_tries=1, lock=["b", "a"], all=True, user="me")
        other = Locker(host="127.0.0.1", port=server.port, connect_tries=1, lock=["b"], user="ann")
        with lock:
            assert server.holders == {"a": "me", "b": "me"} and lock.tokens == {"a": None, "b": None}
        assert server.holders == {}
        other.lock()
        assert lock.acquire(False) is False
        assert server.holders == {"b": "ann"}
        with in_thread(lambda: lock.acquire(timeout=DEADLINE)) as got:
            wait_for(lambda: server.queue)
            other.unlock()
        assert got == [True] and server.holders == {"a": "me", "b": "me"}
        lock.unlock()


def test_one_that_is_lost_while_the_next_is_asked_for_is_got_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquisition = scene.acquisition("a b")
    acquisition.subscribes = True
    say = ServerConnection.send_request
    broken: list[str] = []

    def break_first(connection: ServerConnection, command: bytes, *more: Any, **variables: Any) -> None:
        if variables.get("locks") == (b"b",) and not broken:
            broken.append(scene.server.connect().ask("locks a; BREAK_LOCK")[0])
        say(connection, command, *more, **variables)

    monkeypatch.setattr(ServerConnection, "send_request", break_first)
    assert acquisition.acquire(True, inf)
    assert broken == ["print_broke me"]
    assert scene.server.held() == {b"a": b"me", b"b": b"me"}
    assert [scene.server.connect().ask(f"CHECK {h.name.decode()} {h.token}")[0] for h in acquisition.grants] == [
        "current 1",
        "current 1",
    ]
    acquisition.release()
