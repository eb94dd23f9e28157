"""PidStat in programs under gevent and eventlet, where there is no epoll, or not even poll."""

from __future__ import annotations

import pytest

from ..support.green import LIBRARIES, run_green
from ..support.servers import pid_server, port_of

SHARED = """
import sys, threading
from ipclocker import PidStat

stat, answers, ticks = PidStat("127.0.0.1", sys.argv[1]), {}, []

def ask(number):
    for pid in range(number, number + 20):
        answers[pid] = stat.pid_request_recv(pid=pid)

stat.pid_request(pid=1)
threads = [threading.Thread(target=ask, args=[10_000_000 + number * 1000]) for number in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(answers), all(answers[pid] == (pid, False, "127.0.0.1") for pid in answers))
print(stat.recv_stat(10), stat.recv_stat(0), stat.ping_status()["ok"])
"""
SELECT_LOOP = """
import select, sys
from ipclocker import PidStat

stat = PidStat("127.0.0.1", sys.argv[1])
print(select.select([stat.fh()], [], [], 0.1)[0] == [])
for host in ("127.0.0.1", "localhost"):
    stat.pid_request(host, 1)
    print(select.select([stat], [], [], 10)[0] == [stat], stat.recv_stat(0))
print(select.select([stat], [], [], 0.1)[0] == [])
"""
OTHERS_RUN = """
import sys, threading, time
from ipclocker import PidStat

waiter = threading.Thread(target=PidStat().recv_stat, args=[3], daemon=True)
waiter.start()
time.sleep(0.1)
print("runs beside it", waiter.is_alive())
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_one_for_many_threads(library: str) -> None:
    with pid_server() as server:
        printed = run_green(library, SHARED, port_of(server))
    assert printed.splitlines() == ["200 True", "(1, True, '127.0.0.1') None True"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_in_a_select_loop(library: str) -> None:
    with pid_server() as server:
        printed = run_green(library, SELECT_LOOP, port_of(server))
    lines = ["True", "True (1, True, '127.0.0.1')", "True (1, True, 'localhost')", "True"]
    assert printed.splitlines() == lines


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_threads_run_while_one_waits(library: str) -> None:
    assert run_green(library, OTHERS_RUN) == "runs beside it True\n"
