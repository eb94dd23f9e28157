"""Keeping a lock while it is held: renewals, losses and servers that go and come, on a clock that the test moves."""

from __future__ import annotations

import errno
import gc
import itertools
import time
from collections.abc import Iterator
from math import inf
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipclocker.lock.client import ending
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connection import ServerConnection
from ipclocker.lock.client.keepalive import KeepAlive
from ipclocker.lock.client.lease import Lease
from ipclocker.lock.client.settings import LockSettings
from ipclocker.net.address import Address

from ...support.keepalive import is_settled
from ...support.memory import MemoryNetwork, MemoryServer, MemorySocket
from ...support.waiting import wait_for
from .test_acquisition import Ear

UP, REFUSES, SILENT = "up", "refuses", "silent"


class World(MemoryNetwork):
    """A server and the network to it; whoever waits lets time pass, and what is due then happens.

    `round_trip`: seconds until a request has arrived, as all of the way is before that, and for a connection.
    """

    def __init__(self) -> None:
        super().__init__(MemoryServer())
        self.state = UP
        self.round_trip = 0.0
        self.connects: list[float] = []  # when it was tried
        self.first: Callable[[], None] = lambda: None  # called whenever a wait is over, before anything else
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    @property
    def now(self) -> float:
        return self.server.now

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Something that happens so many seconds after the begin."""
        self.events.append((1000.0 + when, next(self._numbers), call))
        self.events.sort()

    def become(self, state: str) -> None:
        """What is in flight when the network falls silent is lost, and its connections never speak again."""
        self.state = state
        for sock in self.links:
            assert isinstance(sock, Wire)
            if state == REFUSES:
                sock.break_off()
            elif state == SILENT:
                sock.cut = True

    def connect(self, address: Address, deadline: float = inf, wait: object = None) -> ServerConnection:
        self.connects.append(self.now)
        if self.state == UP and self.round_trip:
            arrives = self.now + self.round_trip
            self.pass_until(min(deadline, arrives))
            self.first()
            if deadline < arrives:
                raise TimeoutError(errno.ETIMEDOUT, "planted")
        if self.state == SILENT:
            self.pass_until(min(deadline, self.now + 10))
            raise TimeoutError(errno.ETIMEDOUT, "planted")
        if self.state == REFUSES:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "planted")
        sock = Wire(self)
        self.links.append(sock)
        return ServerConnection(sock, address, self.wait)  # type: ignore[arg-type]

    def wait(self, sock: object, events: int, deadline: float) -> bool:
        ready = self._wait(sock, deadline)
        self.first()
        return ready

    def _wait(self, sock: object, deadline: float) -> bool:
        while not (isinstance(sock, Wire) and sock.is_readable()):
            if self.now >= deadline:
                return False
            alarm = self.server.service.table.next_expiry
            coming = min(deadline, alarm, self.events[0][0] if self.events else inf)
            assert coming < inf, "it waits for ever"
            self.pass_until(max(coming, self.now))
        return True

    def pass_until(self, when: float) -> None:
        while self.events and self.events[0][0] <= when:
            due, _, call = self.events.pop(0)
            self.server.pass_time(max(0.0, due - self.now))
            call()
        self.server.pass_time(max(0.0, when - self.now))


class Wire(MemorySocket):
    """A connection that may be cut without anybody being told."""

    cut = False
    unheard = False  # what is sent does not arrive

    def is_readable(self) -> bool:
        return not self.cut and super().is_readable()

    def send(self, data: bytes) -> int:
        assert isinstance(self.network, World)
        if self.cut or self.unheard:
            return len(data)
        if self.network.round_trip:
            arrives = self.network.now + self.network.round_trip
            self.network.at(arrives - 1000, lambda: None if self.cut or not self.open else self.peer.send(data))
            return len(data)
        return super().send(data)

    def recv(self, size: int) -> bytes:
        if self.cut:
            raise BlockingIOError
        return super().recv(size)


class Holder:
    """Who holds the lock x, and keeps it."""

    def __init__(self, world: World, lease: float = 0.0, hold: float = 0.0, names: str = "x") -> None:
        parameters: dict[str, Any] = {"lease": lease} if lease else {"timeout": hold}
        given = LockSettings(host="127.0.0.1", port=1, lock=names.split(), all=True, user="me", **parameters)
        self.world = world
        self.acquisition = LockAcquisition(given, Ear(), world.wait)
        self.acquisition.subscribes = True
        assert self.acquisition.acquire(False, inf)
        self.lease = Lease(lease, self.acquisition.grants[0].asked) if lease else None
        self.keepalive = KeepAlive(self.acquisition.connector, self.acquisition.grants, self.lease)
        self._was_overdue = False
        world.first = self._look_at_the_time

    def _look_at_the_time(self) -> None:
        """Do what a command's guard does first when it wakes up, whatever may be waiting to be read."""
        self._was_overdue |= self.lease is not None and self.world.now >= self.lease.stop_at

    def keep(self, seconds: float) -> None:
        """Keep it for so long, or until it is lost; no step may take longer than it was told."""
        until = self.world.now + seconds
        while self.keepalive.loss is None and self.world.now < until:
            end = until if self.lease is None else min(until, self.lease.stop_at)
            if self.world.now >= end:
                return
            self.keepalive.step(end)
            assert self.world.now <= end

    @property
    def is_overdue(self) -> bool:
        self._look_at_the_time()
        return self._was_overdue

    @property
    def why(self) -> str:
        assert self.keepalive.loss is not None
        return self.keepalive.loss.why


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    gc.collect()
    with monkeypatch.context() as patch:
        yield new_world(patch)


def new_world(patch: pytest.MonkeyPatch) -> World:
    """Make one, and have all of this process live in it: so no Locker of an earlier test may end in it."""
    wait_for(lambda: not ending._threads, "earlier Lockers give back what they hold")
    world = World()
    patch.setattr(ServerConnection, "connecting", world.connecting)
    patch.setattr(time, "monotonic", lambda: world.now)
    return world


def test_a_lease_is_renewed_for_as_long_as_it_is_kept(world: World) -> None:
    holder = Holder(world, lease=30)
    holder.keep(3000)
    assert world.server.held() == {b"x": b"me"} and holder.keepalive.loss is None and not holder.is_overdue
    assert 300 <= world.steps <= 700, "a request and an answer every ten seconds"


def test_several_are_renewed_at_once(world: World) -> None:
    holder = Holder(world, lease=3, names="z a m")
    holder.keep(100)
    assert world.server.held() == {b"z": b"me", b"a": b"me", b"m": b"me"} and holder.keepalive.loss is None
    world.server.connect().say("locks m; BREAK_LOCK")
    holder.keep(10)
    assert holder.keepalive.loss is not None and holder.keepalive.loss.name == "m"


def test_nothing_is_said_without_need(world: World) -> None:
    holder = Holder(world)
    steps = world.steps
    holder.keep(100_000)
    assert world.steps == steps and holder.keepalive.loss is None


@pytest.mark.parametrize("state", [REFUSES, SILENT])
def test_a_server_that_is_gone_leaves_the_lease_to_its_times(world: World, state: str) -> None:
    holder = Holder(world, lease=30)
    holder.keep(25)
    world.become(state)
    begin = world.now
    holder.keep(1000)
    assert holder.is_overdue and holder.keepalive.loss is None
    assert world.now - begin <= 20.1 and "the lock server 127.0.0.1:1 does not answer" in holder.keepalive.problem


@pytest.mark.parametrize("lease", [3.0, 30.0, 600.0])
@pytest.mark.parametrize("state", [REFUSES, SILENT])
def test_a_server_that_comes_back_in_time_goes_on_as_if_nothing_had_been(
    world: World, state: str, lease: float
) -> None:
    holder = Holder(world, lease=lease)
    for begin in range(5):
        world.at(lease * (begin + 0.1), lambda: world.become(state))
        world.at(lease * (begin + 0.3), lambda: world.become(UP))
    holder.keep(lease * 8)
    assert not holder.is_overdue and holder.keepalive.loss is None
    assert world.server.held() == {b"x": b"me"}


@pytest.mark.parametrize("round_trip", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("lease", [3.0, 10.0])
def test_an_answer_may_take_as_long_as_the_lease_allows(world: World, lease: float, round_trip: float) -> None:
    world.round_trip = round_trip
    holder = Holder(world, lease=lease)
    holder.keep(20 * lease)
    assert not holder.is_overdue and holder.keepalive.loss is None
    assert world.server.held() == {b"x": b"me"}
    holder.keepalive.close()
    assert sum(sock.open for sock in world.links) <= 1


@pytest.mark.parametrize("round_trip", [0.01, 0.8])
def test_a_way_that_becomes_long_is_no_loss(world: World, round_trip: float) -> None:
    """Even if the connection was made when it was short."""
    holder = Holder(world, lease=3)
    world.round_trip = round_trip
    holder.keep(60)
    assert not holder.is_overdue and world.server.held() == {b"x": b"me"}


def test_a_connection_that_is_dead_is_replaced_in_time(world: World) -> None:
    for lease in (3.0, 30.0, 600.0):
        holder = Holder(world, lease=lease)
        for _ in range(5):
            for sock in world.links:
                assert isinstance(sock, Wire)
                sock.cut = True
            holder.keep(lease)
        assert not holder.is_overdue and world.server.held() == {b"x": b"me"}
        assert sum(sock.open for sock in world.links) == 1, "the dead ones are closed"
        assert holder.acquisition.release()
        holder.acquisition.connector.close()


def test_a_server_that_restarts_far_away_is_reached_in_time(world: World) -> None:
    """A new connection and an answer take two round trips."""
    world.round_trip = 0.8
    holder = Holder(world, lease=6)
    world.at(4, lambda: world.become(REFUSES))
    world.at(4.5, lambda: world.become(UP))
    holder.keep(60)
    assert not holder.is_overdue and world.server.held() == {b"x": b"me"}


def test_answers_that_nobody_waits_for_are_not_taken_for_others(world: World) -> None:
    """The command ends while a renewal is under way; the release is done when it is done, not one answer before."""
    world.round_trip = 0.4
    holder = Holder(world, lease=30)
    holder.keep(9.8)
    assert holder.keepalive._inquiry is not None
    holder.keepalive.close()
    assert holder.acquisition.release()
    assert world.server.held() == {}


def test_an_answer_that_comes_late_counts_from_when_it_was_asked_for(world: World) -> None:
    holder = Holder(world, lease=30)
    (sock,) = world.links
    holder.keep(9)
    in_time = sock.is_readable
    sock.is_readable = lambda: world.now >= 1014 and in_time()  # type: ignore[method-assign]
    holder.keep(6)
    assert holder.lease is not None and holder.lease.sent == 1010


def test_a_loss_that_the_server_tells(world: World) -> None:
    for lease in (0.0, 30.0):
        holder = Holder(world, lease=lease)
        world.at(world.now - 1000 + 2.5, lambda: world.server.connect().say("locks x; BREAK_LOCK"))
        begin = world.now
        holder.keep(1000)
        assert world.now == begin + 2.5 and "broken" in holder.why
        assert holder.keepalive.loss is not None and not holder.keepalive.loss.recalled


def test_a_recall(world: World) -> None:
    holder = Holder(world, lease=30)
    world.at(5, lambda: world.server.connect().say("locks x; RECALL"))
    holder.keep(1000)
    assert world.now == 1005 and holder.keepalive.loss is not None and holder.keepalive.loss.recalled
    assert world.server.held() == {b"x": b"me"}, "it is for the holder to give it back"
    assert holder.acquisition.release() and world.server.held() == {}


def test_a_hold_time_that_is_over(world: World) -> None:
    holder = Holder(world, hold=7)
    holder.keep(1000)
    assert world.now == pytest.approx(1007) and holder.why == "its hold time was over"


@pytest.mark.parametrize("state", [REFUSES, SILENT])
@pytest.mark.parametrize("what", ["BREAK_LOCK", "RECALL"])
@pytest.mark.parametrize("lease", [0.0, 30.0])
def test_what_came_about_while_the_server_could_not_be_heard(world: World, state: str, what: str, lease: float) -> None:
    holder = Holder(world, lease=lease)
    world.become(state)
    world.server.connect().say(f"locks x; {what}")
    world.at(5, lambda: world.become(UP))
    holder.keep(19)
    if state == SILENT and not lease:
        assert holder.keepalive.loss is None, "nothing is asked, so nothing is heard"
        return
    recalled = bool(lease) and what == "RECALL"
    assert holder.keepalive.loss is not None and holder.keepalive.loss.recalled == recalled
    assert recalled or "does not know of it any more" in holder.why


def test_a_server_that_comes_back_and_knows_it_still(world: World) -> None:
    holder = Holder(world)
    world.become(REFUSES)
    world.at(500, lambda: world.become(UP))
    holder.keep(1000)
    assert holder.keepalive.loss is None and is_settled(holder.keepalive)
    world.server.connect().say("locks x; BREAK_LOCK")
    holder.keep(1)
    assert "broken" in holder.why, "it is told over the new connection as well"


def test_what_concerns_others_is_nothing(world: World) -> None:
    holder = Holder(world, lease=30)
    (sock,) = world.links
    token = holder.acquisition.grants[0].token or 0
    sock.peer.heard += b"lost x %d\nlost y %d\nrecall x 99\nlost x\nnews x y\n" % (token - 1, token)
    holder.keep(100)
    assert holder.keepalive.loss is None and not holder.is_overdue


def test_a_server_that_can_not_write_is_asked_again(world: World) -> None:
    holder = Holder(world, lease=30)
    holder.keep(9)
    world.links[0].peer.heard += b"error unwritable\n\n\n"
    holder.keep(3)
    assert len(world.links) == 2 and holder.keepalive.loss is None
    assert holder.lease is not None and holder.lease.sent > 1009


def test_an_answer_that_is_none_is_no_renewal(world: World) -> None:
    holder = Holder(world, lease=30)
    (sock,) = world.links
    assert isinstance(sock, Wire)
    sock.unheard = True
    world.at(10, lambda: setattr(sock.peer, "heard", b"error what_is_renew\n\n\n"))
    world.state = REFUSES
    holder.keep(1000)
    assert holder.is_overdue and world.now == 1020


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([3.0, 10.0, 60.0]),
    st.lists(st.tuples(st.floats(0.01, 1.0), st.sampled_from([UP, UP, REFUSES, SILENT])), max_size=12),
)
def test_the_holder_is_out_before_the_server_is(lease: float, story: list[tuple[float, str]]) -> None:
    """Whatever the network does, and whenever: at no time does the holder believe in more than the server keeps."""
    with pytest.MonkeyPatch.context() as patch:
        world = new_world(patch)
        holder = Holder(world, lease=lease)
        assert holder.lease is not None
        when = 0.0
        for pause, state in story:
            when += pause * lease
            world.at(when, lambda state=state: world.become(state))  # type: ignore[misc]
        while not holder.is_overdue and world.now < 1000 + when + 2 * lease:
            holder.keep(lease / 20)
            grant = world.server.service.table.held.get(b"x")
            assert grant is not None and grant.deadline >= holder.lease.expires_at
            assert holder.keepalive.loss is None
        if not holder.is_overdue:
            return
        world.pass_until(holder.lease.kill_at)
        assert world.server.held() == {b"x": b"me"}
