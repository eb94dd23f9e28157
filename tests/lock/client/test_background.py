"""The background thread of a process: many tasks, none of which holds up another; failures, interrupts and forks."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import resource
import selectors
import socket
import threading
import time
from math import inf
from typing import Callable

import pytest

from ipclocker.lock.client import background
from ipclocker.lock.client.background import Task
from ipclocker.lock.client.connection import READ, WRITE
from ipclocker.lock.client.steps import Steps

from ...support.interrupt import Interrupt
from ...support.keepalive import background_threads
from ...support.open_files import open_files
from ...support.processes import in_child
from ...support.waiting import DEADLINE, wait_for

pytestmark = pytest.mark.usefixtures("no_thread")
LONG = 1000.0  # seconds: longer than any test


class Failures:
    """Counts failures of tasks."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


def begin(steps: Steps[None], failed: Callable[[], object] = lambda: None) -> Task:
    task = Task(steps, failed, "a test")
    background.start(task)
    return task


def listening(sock: socket.socket, heard: list[bytes]) -> Steps[None]:
    """Note what comes, until the other end is closed."""
    with sock:
        while (yield sock, READ, time.monotonic() + LONG):
            data = sock.recv(100)
            if not data:
                return
            heard.append(data)


def sleeping(seconds: float, woken: list[float]) -> Steps[None]:
    assert not (yield None, 0, time.monotonic() + seconds)
    woken.append(seconds)


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def test_one_thread_for_many_which_ends_with_the_last() -> None:
    pairs = [pair() for _ in range(50)]
    heard: list[list[bytes]] = [[] for _ in pairs]
    tasks = [begin(listening(ours, notes)) for (ours, _), notes in zip(pairs, heard)]
    wait_for(lambda: background_threads() == 1, "one thread")
    for number, (_, theirs) in enumerate(pairs):
        theirs.send(b"%d" % number)
    wait_for(lambda: heard == [[b"%d" % number] for number in range(50)], "all that was sent")
    for _, theirs in pairs:
        theirs.close()
    wait_for(lambda: all(task.ended for task in tasks) and background_threads() == 0, "the end")
    assert all(ours.fileno() == -1 for ours, _ in pairs)


def test_deadlines_come_in_their_order() -> None:
    woken: list[float] = []
    for seconds in (0.2, 0.0, 0.1, inf):
        begin(sleeping(seconds, woken))
    wait_for(lambda: len(woken) == 3, "three of four")
    assert woken == sorted(woken)


def test_a_deadline_that_was_met_is_no_deadline_of_the_next_wait() -> None:
    ours, theirs = pair()
    answers: list[bool] = []
    woken: list[float] = []

    def twice() -> Steps[None]:
        for seconds in (0.1, LONG):
            answers.append((yield ours, READ, time.monotonic() + seconds))
            ours.recv(100)
        ours.close()

    theirs.send(b"in time")
    task = begin(twice())
    begin(sleeping(0.2, woken))
    wait_for(lambda: woken, "the time of the first deadline")
    assert answers == [True]
    theirs.send(b"again")
    wait_for(lambda: task.ended, "its end")
    assert answers == [True, True]
    theirs.close()


def test_what_is_started_while_the_thread_comes_to_its_end_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    dismiss = background._Shared.dismiss
    woken: list[float] = []
    late = [Task(sleeping(0.0, woken), lambda: None, "a test")]

    def dismiss_late(shared: background._Shared) -> None:
        if late:
            background.start(late.pop())  # there is a thread, so none is begun
        dismiss(shared)

    monkeypatch.setattr(background._Shared, "dismiss", dismiss_late)
    begin(sleeping(0.0, woken))
    wait_for(lambda: len(woken) == 2, "both")


def test_it_can_wait_until_it_can_write() -> None:
    ours, theirs = pair()
    theirs.setblocking(False)
    sent: list[int] = []

    def writing() -> Steps[None]:
        for _ in range(2):
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent.append(ours.send(b"x" * 10_000))
            assert (yield ours, WRITE, time.monotonic() + LONG)
        sent.append(0)

    task = begin(writing())
    wait_for(lambda: task.descriptor is not None, "full buffers")
    received = 0
    while not task.ended:
        with contextlib.suppress(BlockingIOError):
            received += len(theirs.recv(100_000))
    assert sent[-1] == 0
    ours.close()
    theirs.close()


def test_a_number_that_is_given_again_is_no_mistake() -> None:
    """A task closes its socket, and the next one has its number, for itself or for another."""
    heard: list[bytes] = []
    far: list[socket.socket] = []

    def changing() -> Steps[None]:
        for number in range(20):
            ours, theirs = pair()
            far.append(theirs)
            theirs.send(b"%d" % number)
            assert (yield ours, READ, time.monotonic() + LONG)
            heard.append(ours.recv(100))
            ours.close()

    tasks = [begin(changing()) for _ in range(5)]
    wait_for(lambda: all(task.ended for task in tasks), "all of them")
    assert len(heard) == 100
    for sock in far:
        sock.close()


def test_one_that_is_stopped_takes_no_step_more() -> None:
    steps = [0]

    def busy() -> Steps[None]:
        try:
            while True:
                steps[0] += 1
                yield None, 0, 0.0
        finally:
            closed.set()

    closed = threading.Event()
    task = begin(busy())
    wait_for(lambda: steps[0] > 10, "steps")
    background.stop(task)
    at_the_end = steps[0]
    background.stop(task)
    assert closed.wait(DEADLINE) and steps[0] == at_the_end
    wait_for(lambda: task.ended, "its end")
    background.stop(task)


def test_stopping_waits_for_the_step_that_is_being_taken() -> None:
    inside, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Steps[None]:
        inside.set()
        go_on.wait(DEADLINE)
        done.set()
        yield None, 0, inf

    task = begin(slow())
    assert inside.wait(DEADLINE)
    threading.Timer(0.1, go_on.set).start()
    background.stop(task)
    assert done.is_set()


def test_one_that_was_never_begun_can_be_stopped() -> None:
    steps = sleeping(0, [])
    background.stop(Task(steps, lambda: None, "a test"))
    assert background_threads() == 0


class Garbage:
    """Something in a circle, that calls when it is collected."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.me = self
        self.call = call

    def __del__(self) -> None:
        self.call()


@pytest.mark.usefixtures("no_automatic_collection")
def test_the_garbage_collector_may_stop_any_task_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the thread itself, in the midst of a step of that very task, for which it must not wait."""
    monkeypatch.setattr(background, "_GIVE_UP_AFTER", inf)
    collected = threading.Event()
    others = [begin(sleeping(LONG, [])) for _ in range(3)]
    mine: list[Task] = []

    def collect() -> None:
        assert background.is_current()
        for task in [*others, *mine]:
            background.stop(task)
        collected.set()

    def collecting() -> Steps[None]:
        yield None, 0, 0.0
        wait_for(lambda: mine, "to know itself")
        Garbage(collect)
        gc.collect()
        yield None, 0, inf
        raise AssertionError("it is stopped")

    failures = Failures()
    mine.append(begin(collecting(), failures))
    assert collected.wait(DEADLINE)
    wait_for(lambda: all(task.ended for task in [*others, *mine]), "the end of all")
    assert not background.is_current() and failures.count == 0


@pytest.mark.usefixtures("no_automatic_collection")
def test_a_finalizer_in_the_thread_may_begin_another_task() -> None:
    woken: list[float] = []

    def starting() -> Steps[None]:
        Garbage(lambda: (begin(sleeping(0.0, woken)), None)[1])
        gc.collect()
        yield None, 0, 0.0

    begin(starting())
    wait_for(lambda: woken, "the other one")


def test_one_that_fails_is_told_and_logged_and_no_other_is_concerned(caplog: pytest.LogCaptureFixture) -> None:
    failures, others = Failures(), Failures()
    ours, theirs = pair()
    heard: list[bytes] = []
    begin(listening(ours, heard), others)

    def failing() -> Steps[None]:
        yield None, 0, 0.0
        raise ZeroDivisionError("planted")

    def wrong() -> Steps[None]:
        closed = socket.socket()
        closed.close()
        yield closed, READ, inf

    tasks = [begin(failing(), failures), begin(wrong(), failures)]
    wait_for(lambda: all(task.ended for task in tasks), "the failures")
    assert failures.count == 2
    assert [record.name for record in caplog.records] == ["ipclocker"] * 2 and "planted" in caplog.text
    theirs.send(b"still there")
    wait_for(lambda: heard == [b"still there"] and not others.count, "the other one")
    theirs.close()


def test_a_thread_that_ends_with_an_error_tells_all(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = Failures()
    socks = [pair() for _ in range(3)]
    tasks = [begin(listening(ours, []), failures) for ours, _ in socks]
    stopped = begin(sleeping(LONG, []), failures)
    background.stop(stopped)
    wait_for(lambda: all(task.descriptor is not None for task in tasks) and stopped.ended, "all to be waited for")
    with monkeypatch.context() as patch:
        patch.setattr(selectors.DefaultSelector, "select", lambda *_: 1 / 0)
        tasks.append(begin(sleeping(LONG, []), failures))
        wait_for(lambda: all(task.ended for task in tasks), "the end of all")
    wait_for(lambda: background_threads() == 0, "the end of the thread")
    assert failures.count == len(tasks) and all(ours.fileno() == -1 for ours, _ in socks)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    woken: list[float] = []
    begin(sleeping(0.0, woken))
    wait_for(lambda: woken, "another thread")
    for _, theirs in socks:
        theirs.close()


def test_without_a_thread_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    before, woken = open_files(), list[float]()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    task = Task(sleeping(0.0, woken), lambda: None, "a test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                background.start(task)
    assert task.stopped and not background._shared.inbox and open_files() == before
    begin(sleeping(0.0, woken))
    wait_for(lambda: woken, "a later one")
    assert woken == [0.0]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_descriptors_nothing_is_begun(left: int) -> None:
    def try_it() -> bool:
        before = open_files()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(entry.split()[0]) for entry in before)
        for _ in range(highest + 1 - len(before)):
            os.open("/dev/null", os.O_RDONLY)  # so that no number below is free
        before = open_files()
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + left, limits[1]))
        try:
            begin(sleeping(0.0, []))
        except OSError as problem:
            failed = problem.errno == errno.EMFILE
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert open_files() == before and background_threads() == 0
        woken: list[float] = []
        begin(sleeping(0.0, woken))
        wait_for(lambda: woken, "a later one")
        return failed

    assert in_child(try_it)


def test_many_threads_begin_at_once() -> None:
    woken: list[float] = []
    for _ in range(20):
        threads = [threading.Thread(target=lambda: begin(sleeping(0.0, woken))) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wait_for(lambda: len(woken) == 200, "all of them")
    wait_for(lambda: background_threads() == 0, "the end of the thread")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may come in a __del__
def test_a_keyboard_interrupt_at_any_step_of_starting_leaves_nothing_behind() -> None:
    """`Renewal` stops a task that nobody knows of any more; here the test does."""
    interrupted, before = 0, open_files()
    for at in range(1, 400):
        task = Task(sleeping(LONG, []), lambda: None, "a test")
        with Interrupt(at, background.__file__) as interrupt:
            background.start(task)
        interrupted += interrupt.came
        background.stop(task)
        wait_for(lambda: task not in background._tasks(background._shared), "its end")  # noqa: B023 - called at once
        if interrupt.steps < at:
            break
    assert interrupted > 50
    gc.collect()
    assert len(open_files() - before) < interrupted / 4, (
        "a pipe that was made and is known to nobody yet can't be closed"
    )
    woken: list[float] = []
    begin(sleeping(0.0, woken))
    wait_for(lambda: woken, "a later one")


# Forks


def test_a_child_has_a_thread_of_its_own_and_no_copies() -> None:
    ours, theirs = pair()
    heard: list[bytes] = []
    task = begin(listening(ours, heard))
    wait_for(lambda: task.descriptor is not None, "the thread")
    kinds = {entry.split()[1].split(":")[0] for entry in open_files()}

    def child() -> bool:
        assert background_threads() == 0 and task.ended and ours.fileno() == -1
        assert not any("eventpoll" in entry for entry in open_files())
        background.stop(task)
        woken: list[float] = []
        begin(sleeping(0.0, woken))
        wait_for(lambda: woken, "a task of its own")
        return True

    assert "anon_inode" in kinds and in_child(child)
    theirs.send(b"the parent's")
    wait_for(lambda: heard == [b"the parent's"], "the task of the parent")
    theirs.close()


def test_forks_amid_work_copy_nothing_that_is_half_made() -> None:
    """Whenever the fork comes, the child has no descriptor of a task, and the parent's tasks know nothing of it."""
    rounds = [0]

    def making() -> Steps[None]:
        while True:
            with socket.socket():  # known to nobody but this step, as while a connection is made
                time.sleep(0.0005)
                yield None, 0, 0.0
            rounds[0] += 1

    before = open_files()
    failures = Failures()
    tasks = [begin(making(), failures) for _ in range(4)]
    for _ in range(60):
        at = rounds[0]
        assert in_child(lambda: open_files() == before and background_threads() == 0)
        wait_for(lambda: rounds[0] > at, "the parent's tasks")  # noqa: B023 - called at once
    for task in tasks:
        background.stop(task)
    wait_for(lambda: all(task.ended for task in tasks), "the end")
    assert failures.count == 0 and open_files() == before


def test_a_task_may_fork() -> None:
    pids: list[int] = []

    def forking() -> Steps[None]:
        yield None, 0, 0.0
        pid = os.fork()
        if not pid:
            os._exit(0 if not background.is_current() else 1)
        pids.append(pid)

    task = begin(forking())
    wait_for(lambda: task.ended, "the fork")
    assert os.waitpid(pids[0], 0)[1] == 0


def test_before_a_fork_a_thread_with_nothing_but_spare_tasks_ends() -> None:
    told: list[str] = []
    task = Task(sleeping(LONG, []), lambda: None, "a test", at_fork=lambda: told.append("fork"))
    background.start(task)
    pid = os.fork()
    if not pid:
        os._exit(0)
    threads = background_threads()
    assert os.waitpid(pid, 0)[1] == 0
    assert threads == 0 and told == ["fork"] and task.ended


def test_a_fork_while_a_step_hangs_is_held_up_for_a_second_at_most() -> None:
    go_on = threading.Event()

    def hanging() -> Steps[None]:
        go_on.wait(DEADLINE)
        yield None, 0, inf

    task = begin(hanging())
    wait_for(lambda: background._shared.current is task, "the step")
    assert in_child(lambda: background_threads() == 0)
    assert not go_on.is_set()
    go_on.set()
    wait_for(lambda: task.number, "its next step")
