"""Waiting for a descriptor, with Python's poll and without."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from math import inf

import pytest

from ipclocker.net.joint_descriptor import JointDescriptor
from ipclocker.net.ready import READ, WRITE, new_poller, poll_until, wait_ready, wait_until


@pytest.fixture(params=["poll", "select"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, ...]]:
    """Two sockets that are connected, where there is poll and where there is none."""
    if request.param == "select":
        monkeypatch.delattr(select, "poll")
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def test_ready_to_read(pair: tuple[socket.socket, ...]) -> None:
    first, second = pair
    assert not wait_ready(first, READ, time.monotonic())
    assert not wait_ready(first, READ, time.monotonic() + 0.05)
    second.send(b"x")
    assert wait_ready(first, READ, inf) and wait_ready(first, READ, 0)


def test_ready_to_write(pair: tuple[socket.socket, ...]) -> None:
    first, second = pair
    assert wait_ready(first, WRITE, inf)
    first.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            first.send(bytes(65_536))
    assert not wait_until(time.monotonic() + 0.05)(first, WRITE, inf)
    second.close()
    assert wait_ready(first, WRITE, inf)  # to be told that it is gone


def test_the_end_of_a_connection_is_ready_to_read(pair: tuple[socket.socket, ...]) -> None:
    first, second = pair
    second.close()
    assert wait_ready(first, READ, inf)


def test_without_a_socket_it_sleeps(pair: tuple[socket.socket, ...]) -> None:
    begin = time.monotonic()
    assert not wait_ready(None, READ, begin + 0.05)
    assert time.monotonic() >= begin + 0.05


def test_several(pair: tuple[socket.socket, ...]) -> None:
    first, second = pair
    poller = new_poller()
    poller.register(first, READ | WRITE)
    poller.register(second.fileno(), READ)
    assert poll_until(poller, inf) == [(first.fileno(), WRITE)]
    first.send(b"x")
    assert set(poll_until(poller, inf)) == {(first.fileno(), WRITE), (second.fileno(), READ)}
    second.send(b"x")
    assert set(poll_until(poller, inf)) == {(first.fileno(), READ | WRITE), (second.fileno(), READ)}


@pytest.mark.parametrize("epoll", [True, False], ids=["as it is", "taken out"])
def test_a_joint_descriptor_is_readable_while_any_of_its_sockets_is(
    monkeypatch: pytest.MonkeyPatch, epoll: bool
) -> None:
    if not epoll:
        for name in ("epoll", "kqueue"):
            monkeypatch.delattr(select, name, raising=False)
    (first, to_first), (second, to_second) = socket.socketpair(), socket.socketpair()
    with first, to_first, second, to_second:
        joint = JointDescriptor(first, second)
        for sock, sender in ((first, to_first), (second, to_second)):
            assert select.select([joint], [], [], 0)[0] == []
            sender.send(b"x")
            assert select.select([joint], [], [], 0)[0] == [joint]
            sock.recv(1)
        joint.close()
        assert select.select([], [first], [], 0)[1] == [first]
