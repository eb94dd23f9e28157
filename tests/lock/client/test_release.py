"""Releasing a lock whose server is away or silent, and what arrives late; on a clock that the test moves."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from ipclocker import ServerUnavailable
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connection import ServerConnection
from ipclocker.lock.client.settings import LockSettings

from ...support.memory import MemoryPeer
from .test_acquisition import Ear
from .test_keepalive import REFUSES, SILENT, UP, Wire, World, new_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    gc.collect()
    with monkeypatch.context() as patch:
        yield new_world(patch)


def holding(world: World, **parameters: Any) -> LockAcquisition:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "lock": "x", **parameters}
    acquisition = LockAcquisition(LockSettings(**given), Ear(), world.wait)
    assert acquisition.acquire(False, inf)
    return acquisition


def cut(world: World) -> None:
    """From now on the connections that there are swallow everything."""
    for sock in world.links:
        assert isinstance(sock, Wire)
        sock.cut = True


@pytest.mark.parametrize("within", [1.0, 5.0, 60.0])
@pytest.mark.parametrize("round_trip", [0.0, 0.2])
def test_a_connection_that_swallows_everything_is_given_up_in_time(
    world: World, within: float, round_trip: float
) -> None:
    acquisition = holding(world)
    world.round_trip = round_trip
    cut(world)
    begin = world.now
    assert acquisition.release(within)
    assert world.server.held() == {} and world.now - begin < within
    acquisition.connector.close()
    assert not any(sock.open for sock in world.links)


@pytest.mark.parametrize("away", [0.5, 3.0, 4.0, 4.8])
def test_it_is_tried_until_the_very_end(world: World, away: float) -> None:
    acquisition = holding(world)
    world.become(REFUSES)
    world.at(away, lambda: world.become(UP))
    assert acquisition.release(5.0)
    assert world.server.held() == {} and away <= world.now - 1000 < 5


@pytest.mark.parametrize("state", [REFUSES, SILENT])
def test_it_is_tried_for_as_long_as_it_was_said_and_no_longer(world: World, state: str) -> None:
    for within in (0.3, 5.0, 60.0):
        acquisition = holding(world, lock=f"x{within}")
        world.become(state)
        begin = world.now
        world.connects.clear()
        with pytest.raises(ServerUnavailable, match="does not answer"):
            acquisition.release(within)
        assert within - 0.05 <= world.now - begin <= within + 0.001
        assert len(world.connects) <= 40
        world.become(UP)


def test_many_are_released_at_once(world: World) -> None:
    """It takes a few round trips, and not one for each."""
    names = [f"n{number}" for number in range(200)]
    acquisition = holding(world, lock=names, all=True, timeout=0)
    world.round_trip = 0.2
    begin = world.now
    assert acquisition.release()
    assert world.server.held() == {} and world.now - begin <= 1.5


# What was on its way


class Recorder:
    """All that is sent over each connection."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: dict[ServerConnection, bytes] = {}
        send = ServerConnection.send

        def record(connection: ServerConnection, data: bytes, *more: Any) -> None:
            self.sent[connection] = self.sent.get(connection, b"") + data
            send(connection, data, *more)

        patch.setattr(ServerConnection, "send", record)

    def take(self) -> list[bytes]:
        """What each connection has sent since the last time."""
        sent, self.sent = list(self.sent.values()), {}
        return sent

    def lines(self, word: bytes) -> list[bytes]:
        """The lines that begin with a word, of all connections."""
        return [line for data in self.sent.values() for line in data.split(b"\n") if line.split(b" ")[0] == word]


@pytest.fixture
def recorder(world: World, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def arrive_late(world: World, data: bytes) -> MemoryPeer:
    """Let arrive what was sent over a connection that nobody listens to any more."""
    peer = world.server.connect()
    peer.send(data)
    return peer


def test_each_acquisition_has_a_session_which_a_broken_connection_does_not_end(
    world: World, recorder: Recorder
) -> None:
    other = world.server.connect()
    other.say("user other; locks x; LOCK")
    world.at(5, lambda: world.become(REFUSES))
    world.at(6, lambda: world.become(UP))
    world.at(20, lambda: other.say("UNLOCK"))
    acquisition = LockAcquisition(LockSettings(host="127.0.0.1", port=1, lock="x"), Ear(), world.wait)
    assert acquisition.acquire(True, inf)
    first, *others = recorder.lines(b"session")
    assert len(first) > 30 and others and set(others) == {first}
    recorder.take()
    assert acquisition.acquire(True, inf) and acquisition.release()
    assert recorder.lines(b"session") == [], "the same connection, and the same session"
    assert acquisition.acquire(True, inf)
    (second,) = recorder.lines(b"session")
    assert second != first and acquisition.release()


def test_an_explicit_user_has_no_session(world: World, recorder: Recorder) -> None:
    acquisition = holding(world, user="agreed")
    assert acquisition.release() and recorder.lines(b"session") == []
    acquisition.settings = acquisition.settings.changed(user=None)
    assert acquisition.acquire(False, inf) and acquisition.release()
    acquisition.settings = acquisition.settings.changed(user="agreed")
    assert acquisition.acquire(False, inf)
    assert world.server.service.table.held[b"x"].owner == (b"agreed", b""), "not that of the connection before"


def test_an_unlock_names_the_grant_if_it_knows_it(world: World, recorder: Recorder) -> None:
    acquisition = holding(world, lock=["x", "y"])
    assert acquisition.release()
    assert recorder.lines(b"UNLOCK") == [b"UNLOCK x 1"]
    world.server.connect().say("user other; locks z; LOCK")
    assert not LockAcquisition(
        LockSettings(host="127.0.0.1", port=1, lock=["a", "z"], all=True), Ear(), world.wait
    ).acquire(False, inf)
    assert recorder.lines(b"UNLOCK") == [b"UNLOCK x 1", b"UNLOCK a 3"]


@pytest.mark.parametrize("names", ["x", "x y"])
def test_what_arrives_late_frees_no_later_grant(world: World, recorder: Recorder, names: str) -> None:
    acquisition = holding(world, lock=names.split(), all=True)
    assert acquisition.release()
    (late,) = recorder.take()
    assert acquisition.acquire(False, inf)
    tokens = [held.token for held in acquisition.grants]
    for data in (late, late.replace(b"\nLOCK\n", b"\n")):
        arrive_late(world, data).hang_up()
        assert [held.token for held in world.server.service.table.held.values()] == tokens
    assert acquisition.release() and world.server.held() == {}


@pytest.mark.parametrize("how", ["released", "given up"])
def test_a_lock_that_arrives_late_makes_no_ghost(world: World, recorder: Recorder, how: str) -> None:
    acquisition = holding(world)
    if how == "released":
        assert acquisition.release()
    else:
        acquisition.abandon()
    late = b"".join(recorder.take()).partition(b"LOCK\n")
    peer = arrive_late(world, late[0].replace(b"block 0", b"block 1") + late[1])
    assert peer.take() == b"error session_over\n\n\n" and world.server.held() == {}
    assert acquisition.acquire(False, inf)


def test_what_was_released_elsewhere_is_asked_for_again(world: World) -> None:
    """A fork of the process may do that, and the server remembers the session as one that is over."""
    acquisition = holding(world)
    user, session = world.server.service.table.held[b"x"].owner
    late = b"user %b\nsession %b once\nlocks x\nUNLOCK x 1\n" % (user, session)
    arrive_late(world, late).hang_up()
    assert world.server.held() == {}
    assert acquisition.acquire(False, inf)
    assert world.server.service.table.held[b"x"].owner[1] != session and acquisition.grants[0].token == 2
    assert acquisition.release() and world.server.held() == {}


def test_a_release_that_nobody_answered_is_made_up_for(world: World) -> None:
    """The server comes back with the lock, which its own client must not wait for."""
    acquisition = holding(world)
    world.become(REFUSES)
    with pytest.raises(ServerUnavailable):
        acquisition.release(0.3)
    assert len(world.server.held()) == 1
    world.become(UP)
    assert acquisition.acquire(False, inf) and acquisition.grants[0].token == 2
    assert acquisition.release() and world.server.held() == {}


def test_a_request_that_nobody_answered_is_made_up_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was granted, but neither the answer nor the release came through."""
    monkeypatch.setattr(Wire, "is_readable", lambda sock: False)
    world.at(1, lambda: world.become(REFUSES))
    acquisition = LockAcquisition(LockSettings(host="127.0.0.1", port=1, lock="x"), Ear(), world.wait)
    with pytest.raises(ServerUnavailable):
        acquisition.acquire(True, world.now + 3)
    assert len(world.server.held()) == 1
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerConnection, "connecting", world.connecting)
        patch.setattr(time, "monotonic", lambda: world.now)
        world.become(UP)
        assert acquisition.acquire(False, inf) and acquisition.grants[0].token == 2
        assert acquisition.release() and world.server.held() == {}
