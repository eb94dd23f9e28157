"""A connection that an exception has left in the middle of a request: its late answers count for nothing else."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Callable

import pytest

from ipclocker import Locker
from ipclocker.lock.client import background
from ipclocker.lock.client.connection import READ, ServerConnection, wait_ready

from ...support.servers import ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


class Interrupted:
    """A way to wait that is interrupted when it waits for an answer, if it is `armed`."""

    armed = False

    def __call__(self, sock: socket.socket | None, events: int, deadline: float) -> bool:
        if self.armed and events & READ:
            self.armed = False
            wait_ready(sock, events, deadline)  # the answer has come, and nobody has read it
            raise KeyboardInterrupt
        return wait_ready(sock, events, deadline)


@pytest.mark.parametrize("leave", [Locker.release, Locker.unlock])
def test_an_answer_to_an_interrupted_unlock_is_not_that_to_the_next_lock(
    server: ThreadServer, leave: Callable[[Locker], object]
) -> None:
    wait = Interrupted()
    lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1, wait_ready=wait)
    for _ in range(2):
        assert lock.acquire()
        wait.armed = True
        with pytest.raises(KeyboardInterrupt):
            leave(lock)
        assert lock.acquire(False)  # it is free, so the first answer would have been another one's
        lock.release()
        assert server.holders() == {}


def test_so_it_is_with_a_lock_that_is_renewed(server: ThreadServer) -> None:
    wait = Interrupted()
    lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1, wait_ready=wait)
    assert lock.lock()
    wait.armed = True
    with pytest.raises(KeyboardInterrupt):
        lock.lock()
    assert lock.acquire(False)
    lock.unlock()
    assert server.holders() == {}


class Stopped:
    """A way to wait that, once `armed`, stops where it waits for an answer, until it may go on."""

    def __init__(self) -> None:
        self.armed = False
        self.is_there, self.may_go = threading.Event(), threading.Event()

    def __call__(self, sock: socket.socket | None, events: int, deadline: float) -> bool:
        if self.armed and events & READ:
            self.armed = False
            self.is_there.set()
            assert self.may_go.wait(DEADLINE)
        return wait_ready(sock, events, deadline)


def test_one_thread_unlocks_while_another_one_is_just_releasing(server: ThreadServer) -> None:
    """Two that speak over one connection would take each other's answers."""
    wait = Stopped()
    lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1, wait_ready=wait)
    ended: list[object] = []

    def use() -> None:
        try:
            lock.acquire()
            wait.armed = True
            lock.release()
            ended.append("well")
        except BaseException as problem:  # noqa: BLE001 - it is looked at below
            ended.append(problem)

    with in_thread(use):
        assert wait.is_there.wait(DEADLINE)
        lock.unlock()
        assert not lock.acquire(False)  # the other one is not out yet
        wait.may_go.set()
    assert ended == ["well"]
    with lock:
        assert server.holders()
    assert server.holders() == {}


def test_threads_that_share_a_locker_have_their_turns(server: ThreadServer) -> None:
    """One that has just left, and wants it once more, stands behind those who wait."""
    lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1)
    turns: list[str] = []

    def use(name: str) -> None:
        while turns.count("a") < 20 and turns.count("b") < 20:
            with lock:
                turns.append(name)

    with lock, in_thread(lambda: use("a")), in_thread(lambda: use("b")):
        wait_for(lambda: len(lock._holding._owners._waiting) == 2)
        lock.release()
        wait_for(lambda: 20 in (turns.count("a"), turns.count("b")))
        lock.acquire()
    assert min(turns.count("a"), turns.count("b")) >= 15


def test_the_first_server_is_asked_again_as_soon_as_it_is_back(server: ThreadServer) -> None:
    """Who comes new takes the first: one that stays with the second keeps out nobody."""
    first = ThreadServer()
    hosts = [f"[127.0.0.1]:{first.port}", f"[127.0.0.1]:{server.port}"]
    lock = Locker("x", host=hosts, connect_tries=1)
    with first:
        pass
    with lock:
        assert server.holders()
    with ThreadServer(port=first.port) as back, lock:
        assert back.holders() and not server.holders()


def test_another_host_is_asked_as_soon_as_it_is_named(server: ThreadServer) -> None:
    with ThreadServer() as other:
        lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1)
        assert lock.lock() and lock.unlock().lock(port=other.port)
        assert other.holders() and not server.holders()
        lock.unlock()


def test_a_lock_is_given_back_that_is_granted_when_the_event_loop_is_closed(server: ThreadServer) -> None:
    first, second = (Locker("x", host="127.0.0.1", port=server.port, connect_tries=1) for _ in range(2))
    loop = asyncio.new_event_loop()
    with first:
        task = loop.create_task(second.acquire_async())
        loop.run_until_complete(asyncio.wait([task], timeout=0.1))
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    wait_for(lambda: not server.holders())
    with second:
        assert server.holders()


def test_the_end_of_python_does_not_wait_for_threads_that_it_has_stopped(
    server: ThreadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1, lease=30)
    lock.acquire()
    renewal = lock._holding._renewal
    assert renewal is not None
    pauses: list[float] = []
    monkeypatch.setattr(background._shared, "current", renewal._task)  # as if it had been stopped in a step
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    background.stop(renewal._task)
    monkeypatch.undo()
    assert pauses == []
    lock.release()


@pytest.mark.parametrize("leave", [Locker.unlock, lambda lock: lock._holding.close(True)])
def test_unlock_and_the_end_give_back_what_another_server_holds_since_earlier(
    server: ThreadServer, monkeypatch: pytest.MonkeyPatch, leave: Callable[[Locker], object]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with ThreadServer() as other:
        lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1)
        lock.acquire()
        with monkeypatch.context() as patch:
            patch.setattr(ServerConnection, "send", interrupt)
            with pytest.raises(KeyboardInterrupt):
                lock.release()
        assert lock.lock(port=other.port) and server.holders() and other.holders()
        leave(lock)
        assert not server.holders() and not other.holders()
