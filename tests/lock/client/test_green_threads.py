"""Locker in programs under gevent and eventlet, where there is no epoll, or not even poll."""

from __future__ import annotations

import pytest

from ...support.green import LIBRARIES, run_green
from ...support.servers import ThreadServer

TURNS = """
import sys, threading, time
from ipclocker import Locker

inside, most, entered = 0, 0, 0

def work():
    global inside, most, entered
    for _ in range(5):
        with Locker(host="127.0.0.1", port=sys.argv[1], lock="one", autounlock=True):
            inside += 1
            most, entered = max(most, inside), entered + 1
            time.sleep(0.002)
            inside -= 1

threads = [threading.Thread(target=work) for _ in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(most, entered)
"""
TIMES = """
import sys, threading, time
from ipclocker import Locker

parameters = dict(host="127.0.0.1", port=sys.argv[1], lock="two")
holder, other = Locker(**parameters), Locker(**parameters)
holder.acquire()
print(other.acquire(blocking=False), other.acquire(timeout=0.1))
waiter = threading.Thread(target=other.acquire)
waiter.start()
time.sleep(0.1)
print("runs beside it", waiter.is_alive())
holder.release()
waiter.join()
print(other.locked())
other.unlock()
"""
LEASE = """
import sys, time
from ipclocker import Locker

with Locker(host="127.0.0.1", port=sys.argv[1], lock="three", lease=3) as lock:
    first = lock.until
    deadline = time.monotonic() + 30
    while lock.until == first and time.monotonic() < deadline:
        time.sleep(0.05)
    print("renewed", lock.until > first, lock.lost.is_set())
"""


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("program", "lines"),
    [
        (TURNS, ["1 50"]),
        (TIMES, ["False False", "runs beside it True", "True"]),
        (LEASE, ["renewed True False"]),
    ],
    ids=["turns", "times", "lease"],
)
def test_a_lock(library: str, program: str, lines: list[str]) -> None:
    with ThreadServer() as server:
        assert run_green(library, program, server.port).splitlines() == lines
