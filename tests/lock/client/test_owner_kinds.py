"""Threads that Python's threading does not know, and greenlets, are owners of a Locker as all threads are."""

from __future__ import annotations

import _thread
from typing import Any

import pytest

from ipclocker import Locker, NotHeld

from ...support.green import LIBRARIES, run_green
from ...support.servers import ThreadServer
from ...support.waiting import in_thread, wait_for

GREEN = """
import sys, threading
from ipclocker import Locker, NotHeld

lock = Locker("x", host="127.0.0.1", port=sys.argv[1])
seen = []

def other():
    seen.append(lock.acquire(False))
    try:
        lock.release()
    except NotHeld:
        seen.append("not held")

with lock, lock:
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
thread = threading.Thread(target=lambda: seen.append(lock.acquire(False)))
thread.start()
thread.join()
lock.unlock()
print(*seen, lock.locked())
"""


def test_foreign_threads() -> None:
    """As a library in C starts them: threading has no Thread for one, and gives it no number of its own."""
    with ThreadServer() as server:
        lock = Locker("x", host="127.0.0.1", port=server.port, connect_tries=1)
        got: list[Any] = []

        def get() -> None:
            got.append(lock.acquire(False))

        _thread.start_new_thread(get, ())
        wait_for(lambda: got)
        assert got == [True] and server.holders()
        _thread.start_new_thread(get, ())
        wait_for(lambda: len(got) == 2)
        assert got == [True, False]
        with pytest.raises(NotHeld, match="another thread or task holds it"):
            lock.release()
        lock.unlock()
        with in_thread(lambda: lock.acquire(False)) as after:
            pass
        assert after == [True]
        lock.unlock()


@pytest.mark.parametrize("library", LIBRARIES)
def test_greenlets(library: str) -> None:
    with ThreadServer() as server:
        assert run_green(library, GREEN, server.port).split() == ["False", "not", "held", "True", "False"]
