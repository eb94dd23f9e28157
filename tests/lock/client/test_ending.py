"""What is given back of Lockers that nobody refers to any more: by whom, and how long that is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from ipclocker import Locker, ServerUnavailable
from ipclocker.lock.client import ending
from ipclocker.net.ready import wait_ready

from ...support import PROJECT
from ...support.fake_servers import FakeTcpServer, close_at_once, say_nothing
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import DEADLINE, wait_for

HERE = threading.get_ident


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[ending._Patience]:
    """All of it at the beginning, and none of what is used up for the tests that follow."""
    fresh = ending._Patience()
    monkeypatch.setattr(ending, "_patience", fresh)
    yield fresh
    wait_for(lambda: not ending._threads, "all is given back, or given up")


class Server:
    """What is to be given back to it; it notes in which thread that was tried, and for how many seconds."""

    def __init__(self, *answers: bool) -> None:
        self._answers = iter(answers)
        self.asked: list[tuple[bool, float]] = []

    def give_back(self, within: float) -> bool:
        self.asked.append((HERE() == self._owner, within))
        return next(self._answers)

    def end(self, wait: bool = True, hurry: Any = ()) -> list[tuple[bool, float]]:
        self._owner = HERE()
        ending.end(self.give_back, wait, hurry)
        wait_for(lambda: not ending._threads)
        return self.asked


def test_a_server_that_answers_is_waited_for() -> None:
    for _ in range(3):
        assert Server(True).end() == [(True, 1.0)]


def test_each_that_does_not_answer_leaves_less_patience_with_the_next(patience: ending._Patience) -> None:
    waited = [Server(False, True).end()[0][1] for _ in range(50)]
    assert waited[:3] == [1.0, 0.25, 0.0625] and sum(waited) < 1.5
    patience._restored_at = time.monotonic()  # as 10 s later
    assert Server(True).end() == [(True, 1.0)]


def test_what_is_not_done_in_a_shorter_time_a_thread_does() -> None:
    assert Server(False).end() == [(True, 1.0)], "it has had all the time that there is"
    assert Server(False, True).end() == [(True, 0.25), (False, 1.0)]


def test_what_is_not_to_be_waited_for_a_thread_does() -> None:
    assert Server(True).end(wait=False) == [(False, 1.0)]


def test_in_a_call_that_has_to_end_in_time_there_is_less_patience() -> None:
    def call(server: Server) -> list[tuple[bool, float]]:
        return server.end(hurry={call.__code__})

    assert call(Server(True)) == [(True, 0.05)]
    assert call(Server(False, True)) == [(True, 0.05), (False, 1.0)]


def test_in_an_event_loop_there_is_less_patience() -> None:
    async def main() -> list[tuple[bool, float]]:
        return Server(True).end()

    assert asyncio.run(main()) == [(True, 0.05)]


def test_a_few_threads_do_it_for_many() -> None:
    go = threading.Event()
    done: list[int] = []

    def give_back(within: float) -> bool:
        done.append(HERE())
        go.wait(DEADLINE)
        raise OSError  # nobody could be told

    for _ in range(100):
        ending.end(give_back, False, ())
    wait_for(lambda: len(done) >= 16)
    assert len(done) == len(ending._threads) == 16
    go.set()
    wait_for(lambda: len(done) == 100)


def test_without_threads_it_is_tried_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    assert Server(True).end(wait=False) == [(True, 0.05)]
    assert Server(False).end() == [(True, 1.0)]
    assert Server(False).end() == [(True, 0.25)]
    assert not ending._left


def test_a_fork_leaves_it_to_its_parent() -> None:
    go = threading.Event()
    for _ in range(20):
        ending.end(lambda within: go.wait(DEADLINE), False, ())
    assert ending._left
    child = os.fork()
    if not child:
        os._exit(bool(ending._left or ending._threads))
    go.set()
    assert os.waitpid(child, 0)[1] == 0


# Lockers


class Circle:
    """What only the garbage collector deletes."""

    def __init__(self, lock: Locker) -> None:
        self.lock, self.circle = lock, self


def held_where_nothing_answers(count: int) -> list[Circle]:
    """Lockers that hold a lock, each of a server that is gone since."""
    circles = []
    for _ in range(count):
        with ThreadServer() as server:
            lock = Locker(host="127.0.0.1", port=server.port)
            assert lock.acquire(timeout=DEADLINE)
            circles.append(Circle(lock))
    return circles


GETS: list[Callable[[Locker], object]] = [
    lambda lock: lock.acquire(timeout=1),
    lambda lock: lock.acquire(blocking=False),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("get", GETS, ids=["acquire(timeout)", "acquire(blocking=False)"])
@pytest.mark.parametrize("serve", [close_at_once, say_nothing])
def test_many_that_hold_a_lock_of_a_server_each_hold_up_no_acquire(
    get: Callable[[Locker], object], serve: Callable[[Any], None]
) -> None:
    """The garbage collector ends them in the middle of it."""

    def wait(*words: Any) -> bool:
        if circles:
            circles.clear()
            gc.collect()
        return wait_ready(*words)

    circles = held_where_nothing_answers(12)
    with FakeTcpServer(serve) as server:
        lock = Locker(host="127.0.0.1", port=server.port, wait_ready=wait)
        begin = time.monotonic()
        with contextlib.suppress(ServerUnavailable):
            assert not get(lock)
        took = time.monotonic() - begin
    assert not circles
    assert took < 11, f"it took {took:.1f} s"  # each second that one of them takes would be added to 1 s, or 5 s


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_a_server_that_was_silent_holds_it_is_given_back_when_it_answers() -> None:
    with Lockerd() as server:
        held = [Locker(f"x{number}", host="127.0.0.1", port=server.port) for number in range(40)]
        assert all(lock.acquire(timeout=DEADLINE) for lock in held)
        with server.stopped():
            held.clear()
            gc.collect()
        wait_for(lambda: server.holders() == {})


PROGRAM = """
import sys
from ipclocker import Locker, ServerUnavailable
lock = Locker(host="127.0.0.1", port=int(sys.argv[1]))
try:
    lock.acquire(timeout=0.05)
except ServerUnavailable:
    print("no answer")
"""


def test_the_end_of_python_waits_for_no_thread_that_can_not_run_any_more() -> None:
    """Up to Python 3.11 it waited for ever."""
    with FakeTcpServer(say_nothing) as server:
        words = [sys.executable, "-c", PROGRAM, str(server.port)]
        done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("no answer\n", "", 0)


UNLOCKS_AT_THE_END = """
import sys
from ipclocker import Locker
class Job:
    def __init__(self):
        self.lock = Locker(host="127.0.0.1", port=int(sys.argv[1]), autounlock=False).lock()
    def __del__(self):
        self.lock.unlock()
        print("done")
job = Job()
job.circle = job
"""


def test_a_lock_can_be_released_while_python_ends() -> None:
    with ThreadServer() as server:
        words = [sys.executable, "-c", UNLOCKS_AT_THE_END, str(server.port)]
        done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
        assert server.holders() == {}
