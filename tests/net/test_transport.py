"""A connection in a loop's turns: what is sent arrives, a peer that reads nothing is given up, a fault costs one."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import pytest

from ipclocker.net.loop import READ, WRITE, Loop
from ipclocker.net.transport import PIECE, Transport

from ..support.waiting import DEADLINE

MUCH = b"0123456789abcdef" * 100_000  # more than any socket's buffer takes


class Recorder(Transport):
    """A transport that notes what happens to it."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        super().__init__(loop, sock)
        self.data = b""
        self.events: list[str] = []
        self.fault: Exception | None = None

    def on_data(self, data: bytes) -> None:
        if self.fault is not None:
            raise self.fault
        self.data += data

    def on_end(self) -> None:
        self.events.append("end")
        super().on_end()

    def on_writable(self) -> None:
        self.wait_for(READ if self.send(b"") else WRITE)

    def on_stalled(self) -> None:
        self.events.append("stalled")
        super().on_stalled()

    def on_close(self) -> None:
        self.events.append("close")


class Scene:
    def __init__(self) -> None:
        self.loop = Loop()
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.transport = Recorder(self.loop, ours)

    def turn_until(self, done: object) -> None:
        end = time.monotonic() + DEADLINE
        while not done() and time.monotonic() < end:  # type: ignore[operator]
            self.loop.turn(0.01)
        assert done()  # type: ignore[operator]

    def take(self) -> bytes:
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.transport.close()
    scene.peer.close()
    scene.loop.close()


def test_what_arrives_is_handed_on_in_pieces(scene: Scene) -> None:
    scene.peer.setblocking(True)
    scene.transport.wait_for(READ)
    scene.peer.sendall(b"x" * (PIECE + 10))
    scene.turn_until(lambda: len(scene.transport.data) == PIECE + 10)


def test_one_that_has_said_nothing_yet_is_waited_for(scene: Scene) -> None:
    scene.transport.on_ready(READ)
    scene.peer.send(b"late")
    scene.turn_until(lambda: scene.transport.data == b"late")


def test_what_the_socket_does_not_take_at_once_is_sent_later_in_its_order(scene: Scene) -> None:
    assert not scene.transport.send(MUCH)
    assert not scene.transport.send(b"tail")
    scene.transport.wait_for(WRITE)
    received = bytearray()

    def all_is_there() -> bool:
        received.extend(scene.take())
        return len(received) == len(MUCH) + 4

    scene.turn_until(all_is_there)
    assert bytes(received) == MUCH + b"tail" and scene.transport.send(b"")


def test_a_peer_that_takes_nothing_is_given_up(scene: Scene) -> None:
    scene.transport.patience = 0.05
    scene.transport.send(MUCH)
    scene.turn_until(lambda: not scene.transport.is_open)
    assert scene.transport.events == ["stalled", "close"]


def test_a_peer_that_reads_slowly_is_not_given_up(scene: Scene) -> None:
    scene.transport.patience = 0.2
    scene.transport.send(MUCH)
    scene.transport.wait_for(WRITE)
    received, end = 0, time.monotonic() + 1.0
    while time.monotonic() < end:  # five times the patience
        scene.loop.turn(0.01)
        try:
            received += len(scene.peer.recv(4096))
        except BlockingIOError:
            continue
    assert received and scene.transport.is_open and scene.transport.events == []


def test_one_whose_answer_was_taken_in_time_may_then_be_silent_for_ever(scene: Scene) -> None:
    scene.transport.patience = 0.05
    scene.transport.send(MUCH)
    scene.transport.wait_for(WRITE)
    received = 0

    def all_is_there() -> bool:
        nonlocal received
        received += len(scene.take())
        return received == len(MUCH)

    scene.turn_until(all_is_there)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        scene.loop.turn(0.01)
    assert scene.transport.is_open


def test_it_is_closed_once_and_watched_no_more(scene: Scene) -> None:
    scene.transport.wait_for(READ)
    scene.transport.close()
    scene.transport.close()
    assert scene.transport.events == ["close"] and not scene.transport.is_open
    scene.loop.turn(0.0)


def test_the_end_of_the_peer_closes_it(scene: Scene) -> None:
    scene.transport.wait_for(READ)
    scene.peer.close()
    scene.turn_until(lambda: not scene.transport.is_open)
    assert scene.transport.events == ["end", "close"]


@pytest.mark.parametrize(("fault", "logged"), [(ConnectionResetError(), 0), (ZeroDivisionError("planted"), 1)])
def test_a_fault_while_it_is_served_costs_this_connection_alone(
    scene: Scene, caplog: pytest.LogCaptureFixture, fault: Exception, logged: int
) -> None:
    scene.transport.fault = fault
    scene.transport.wait_for(READ)
    scene.peer.send(b"x")
    with caplog.at_level(logging.ERROR):
        scene.turn_until(lambda: not scene.transport.is_open)
    assert len(caplog.records) == logged


def test_to_send_to_a_peer_that_is_gone_raises(scene: Scene) -> None:
    scene.peer.close()
    with pytest.raises(OSError):
        scene.transport.send(b"x")
        scene.transport.send(b"x")
