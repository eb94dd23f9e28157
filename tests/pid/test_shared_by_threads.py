"""One PidStat for many threads: each has the answer to its own question, and none waits for ever."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Callable

import pytest

from ipclocker import PidStat
from ipclocker.pid import client

from ..support.fake_servers import false_server
from ..support.processes import NO_PID
from ..support.servers import pid_server, port_of
from ..support.waiting import DEADLINE, in_thread, wait_for

THREADS = 24
HOST = "127.0.0.1"


def together(calls: Iterable[Callable[[], object]]) -> list[object]:
    """What these calls return, each in a thread of its own."""
    calls = list(calls)
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(DEADLINE) for future in [pool.submit(call) for call in calls]]


def answer(datagram: bytes) -> bytes:
    """A server's answer: a process exists if its number is even."""
    pid, secret = datagram.split()[1:3]
    return b"EXIS %b %d %b" % (pid, int(pid) % 2 == 0, secret)


def expected(pid: int) -> tuple[int, bool, str]:
    return pid, pid % 2 == 0, HOST


def ask_of(stat: PidStat) -> Callable[[int], Callable[[], object]]:
    return lambda pid: lambda: stat.pid_request_recv(pid=pid)


def has_reader(stat: PidStat) -> Callable[[], bool]:
    return lambda: any(exchange._reader is not None for exchange in stat._exchanges.values())


def waits(stat: PidStat, count: int = 1) -> Callable[[], bool]:
    """Whether so many questions are open: their threads wait, or are about to."""
    return lambda: any(len(exchange._questions) == count for exchange in stat._exchanges.values())


def test_many_threads_and_a_real_server() -> None:
    with pid_server() as server, PidStat(HOST, port_of(server)) as stat:

        def ask(number: int) -> None:
            pids = [1, os.getpid(), *range(NO_PID + number * 1000, NO_PID + number * 1000 + 50)]
            for pid in pids:
                assert stat.pid_request_recv(pid=pid) == (pid, pid < NO_PID, HOST)
                assert stat.ping_status(pid=1)["ok"]

        def queue() -> set[object]:
            for pid in range(NO_PID, NO_PID + 50):
                stat.pid_request(pid=pid)
            return {stat.recv_stat(DEADLINE) for _ in range(50)}

        queued, *_ = together([queue, *(partial(ask, number) for number in range(1, THREADS))])
        assert queued == {(pid, False, HOST) for pid in range(NO_PID, NO_PID + 50)}
        assert stat.recv_stat(0) is None


def test_many_threads_and_answers_that_are_late_lost_doubled_and_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.1)
    dice = random.Random(1)
    kept: list[bytes] = []

    def disorderly(datagram: bytes) -> list[bytes]:
        kept.append(datagram)
        if len(kept) < 8 and dice.random() < 0.8:
            return []
        dice.shuffle(kept)
        answers = [answer(each) for each in kept if dice.random() < 0.7 for _ in range(dice.choice([1, 1, 2]))]
        kept.clear()
        return answers

    def ask(number: int) -> None:
        for pid in range(number * 1000 + 1, number * 1000 + 21):
            assert stat.pid_request_recv(pid=pid) == expected(pid)

    with false_server(disorderly) as port, PidStat(HOST, port, tries=100) as stat:
        together(partial(ask, number) for number in range(THREADS))


def test_answers_of_the_queue_and_of_threads_do_not_mix() -> None:
    """The thread that reads the socket for all waits for the queue, and has no answer of the others."""

    def late(datagram: bytes) -> list[bytes]:
        kept.append(datagram)
        return [answer(each) for each in reversed(kept)] if len(kept) == 3 else []

    kept: list[bytes] = []
    with false_server(late) as port, PidStat(HOST, port) as stat, in_thread(lambda: stat.recv_stat(DEADLINE)) as queued:
        stat.pid_request(pid=1)
        answers = together(map(ask_of(stat), (2, 3)))
    assert answers == [expected(2), expected(3)]
    assert queued == [expected(1)]


def test_when_the_thread_that_reads_has_its_answer_another_one_reads() -> None:
    def one_first(datagram: bytes) -> list[bytes]:
        questions[int(datagram.split()[1])] = datagram
        if len(questions) == 4:
            return [answer(each) for each in questions.values()]
        return [answer(questions[1])] if len(questions) == 3 else []

    questions: dict[int, bytes] = {}
    with false_server(one_first) as port, PidStat(HOST, port) as stat:
        with in_thread(lambda: stat.pid_request_recv(pid=1)) as first:
            wait_for(has_reader(stat))
            with in_thread(lambda: together(map(ask_of(stat), (2, 3)))) as others:
                wait_for(lambda: first)
                stat.pid_request(pid=4)
        assert stat.recv_stat(DEADLINE) == expected(4)
    assert (first, others) == ([expected(1)], [[expected(2), expected(3)]])


def test_when_the_thread_that_reads_has_waited_long_enough_another_one_reads() -> None:
    release = threading.Event()

    def late(datagram: bytes) -> list[bytes]:
        release.wait(DEADLINE)
        return [answer(datagram)]

    with false_server(late) as port, PidStat(HOST, port) as stat, in_thread(lambda: stat.recv_stat(0.2)) as reader:
        wait_for(has_reader(stat))
        with in_thread(lambda: stat.pid_request_recv(pid=2)) as asker:
            wait_for(lambda: reader)
            release.set()
    assert (reader, asker) == ([None], [expected(2)])


def test_silence_takes_all_threads_as_long_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.2)
    with false_server(lambda datagram: []) as port, PidStat(HOST, port, tries=3) as stat:
        begin = time.monotonic()
        assert together(map(ask_of(stat), range(1, THREADS))) == [None] * (THREADS - 1)
        assert time.monotonic() - begin < 0.6 * THREADS / 2  # far less than one after the other


def test_an_answer_from_this_host_wakes_who_waits_for_the_queue() -> None:
    with pid_server() as server, PidStat(HOST, port_of(server)) as stat, in_thread(stat.recv_stat) as queued:
        wait_for(has_reader(stat))
        stat.pid_request(host="localhost", pid=1)
    assert queued == [(1, True, "localhost")]


def test_a_thread_that_fails_while_it_reads_leaves_that_to_another() -> None:
    def trace(line: str) -> None:
        if line.startswith("received") and threading.current_thread() is failing[0]:
            raise OSError("no room")

    failing: list[threading.Thread] = []
    release = threading.Event()

    def late(datagram: bytes) -> list[bytes]:
        release.wait(DEADLINE)
        return [answer(datagram)]

    def fail() -> None:
        failing.append(threading.current_thread())
        with pytest.raises(OSError, match="no room"):
            stat.recv_stat()

    with false_server(late) as port, PidStat(HOST, port, trace=trace) as stat, in_thread(fail):
        wait_for(has_reader(stat))
        with in_thread(lambda: stat.pid_request_recv(pid=2)) as asker:
            wait_for(waits(stat))
            release.set()
    assert asker == [expected(2)]  # by the second try


def test_close_lets_all_threads_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE", DEADLINE)
    before = len(os.listdir("/proc/self/fd"))
    stat = PidStat(HOST, 1, tries=1)
    with in_thread(stat.recv_stat) as first:
        wait_for(has_reader(stat))  # one that begins after close opens new sockets, and waits for them
        with in_thread(lambda: stat.pid_request_recv(pid=2)) as second:
            wait_for(waits(stat))
            stat.close()
            stat.close()
    assert (first, second) == ([None], [None])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_after_close_it_begins_anew_and_so_does_a_fork() -> None:
    with pid_server() as server, PidStat(HOST, port_of(server)) as stat, in_thread(stat.recv_stat):
        wait_for(has_reader(stat))
        if (child := os.fork()) == 0:  # in which no thread reads for this one
            os._exit(0 if stat.pid_request_recv(pid=1) == (1, True, HOST) else 1)
        assert os.waitpid(child, 0)[1] == 0
        stat.close()
        assert stat.pid_request_recv(pid=1) == (1, True, HOST)
