"""How often servers are tried that do not answer, on a clock that the test moves."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from ipclocker import Locker, ServerUnavailable
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.settings import LockSettings

from .test_acquisition import Ear
from .test_keepalive import REFUSES, UP, World, new_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    gc.collect()
    with monkeypatch.context() as patch:
        yield new_world(patch)


def new_acquisition(world: World, ear: Ear | None = None, **parameters: Any) -> LockAcquisition:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "lock": "x", **parameters}
    return LockAcquisition(LockSettings(**given), ear or Ear(), world.wait)


def pauses(world: World) -> list[float]:
    """The times from one try to the next."""
    return [later - earlier for earlier, later in zip(world.connects, world.connects[1:])]


@pytest.mark.parametrize("away", [0.1, 0.5, 3.0, 20.0, 80.0])
def test_a_server_that_is_just_restarting_costs_the_time_of_its_restart(world: World, away: float) -> None:
    ear = Ear()
    world.become(REFUSES)
    world.at(away, lambda: world.become(UP))
    assert new_acquisition(world, ear).acquire(True, inf)
    assert away <= world.now - 1000 <= min(2 * away + 0.5, away + 5)
    assert ear.heard == ["retry"] * (1 if away < 45 else 2)


def test_tries_and_delay_are_the_time_for_all_of_it(world: World) -> None:
    for tries, delay in ((3, 30.0), (2, 10.0), (6, 30.0)):
        begin, ear = world.now, Ear()
        world.connects.clear()
        world.become(REFUSES)
        with pytest.raises(ServerUnavailable, match="start lockerd"):
            new_acquisition(world, ear, connect_tries=tries, connect_delay=delay).acquire(True, inf)
        assert world.now - begin == pytest.approx(tries * delay)
        assert ear.heard == ["retry"] * (tries - 1)
        apart = pauses(world)
        assert 0.2 <= apart[0] <= 0.4 and max(apart) <= 5 and len({round(pause, 3) for pause in apart[-8:]}) > 1
        assert len(apart) <= 6 * (tries - 1) + tries * delay / 2.5


def test_one_try_is_one(world: World) -> None:
    world.become(REFUSES)
    ear = Ear()
    with pytest.raises(ServerUnavailable):
        new_acquisition(world, ear, connect_tries=1).acquire(True, inf)
    assert world.connects == [1000] and ear.heard == []


def test_all_hosts_are_tried_each_time(world: World) -> None:
    world.become(REFUSES)
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:1: planted; 127\.0\.0\.2:1: planted"):
        new_acquisition(world, host="127.0.0.1:127.0.0.2").acquire(True, inf)
    assert world.connects[0::2] == world.connects[1::2]


@pytest.mark.parametrize(("wait", "tries"), [(0.0, 1), (1.0, 3), (10.0, 7)])
def test_a_wait_with_an_end_is_used_for_tries(world: World, wait: float, tries: int) -> None:
    world.become(REFUSES)
    with pytest.raises(ServerUnavailable, match="start lockerd"):
        new_acquisition(world).acquire(wait > 0, world.now + wait)
    assert world.now - 1000 <= wait and len(world.connects) >= min(tries, 2)
    assert len(world.connects) <= tries


@pytest.mark.parametrize("limit", [1.0, 3.0, 7.0, 29.0])
def test_a_server_that_comes_back_just_before_the_end_of_a_wait_is_found(world: World, limit: float) -> None:
    world.become(REFUSES)
    world.at(limit - 0.45, lambda: world.become(UP))
    assert new_acquisition(world).acquire(True, 1000 + limit)
    assert world.now < 1000 + limit


def test_who_waits_is_back_in_the_queue_soon(world: World) -> None:
    """However long its server was away, within the time that it has."""
    world.server.connect().say("user other; locks x; LOCK")
    for begin, away in ((10, 0.5), (100, 20), (200, 80)):
        world.at(begin, lambda: world.become(REFUSES))
        world.at(begin + away, lambda: world.become(UP))
        world.at(begin + away + 5, lambda: queued.append(len(world.server.service.table.waiters(b"x"))))
    queued: list[int] = []
    world.at(400, lambda: world.server.connect().say("locks x; BREAK_LOCK"))
    assert new_acquisition(world).acquire(True, inf)
    assert queued == [1, 1, 1] and world.now == 1400


def test_what_a_locker_calls_while_no_server_answers(world: World) -> None:
    world.become(REFUSES)
    heard: list[tuple[str, float]] = []
    lock = Locker(
        host="127.0.0.1",
        port=1,
        wait_ready=world.wait,
        print_retry=lambda locker: heard.append(("retry", world.now - 1000)),
        print_down=lambda locker: heard.append(("down", world.now - 1000)),
    )
    assert lock.lock() is None
    assert [(what, round(when)) for what, when in heard] == [("retry", 0), ("retry", 45), ("down", 90)]
