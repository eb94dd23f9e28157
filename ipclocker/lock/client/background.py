"""The one background thread of a process: it takes the steps (steps.py) of many tasks, each when it can go on.

It starts with the first task and ends when there is none. No task waits for another: the thread waits in one selector
for the sockets of all and for the nearest of their deadlines.

Only the thread takes steps, and all others reach it without a lock: each side writes first what it has to say, then
reads what the other has written, so that one of the two always sees the other. So the garbage collector may stop a
task at any point, a KeyboardInterrupt leaves nothing locked, and a fork copies no lock.

A fork: before it, the thread ends if it has no task (a process with one thread can be forked without fear, and without
a warning of Python 3.12), and else takes no step until it is done, so that nothing is half made in the copy. The child
closes what it has copied, and has a thread of its own when it needs one.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import sys
import time
from collections import deque
from collections.abc import Iterator
from threading import Thread, get_ident
from typing import Callable

from .connection import READ, WRITE
from .steps import Awaited, Steps

_LONGEST_WAIT = 3600.0  # seconds; a selector takes milliseconds as a C int
_GIVE_UP_AFTER = 1.0  # seconds to wait for a step, which itself never waits: somebody else holds up the thread
_LOOK_AGAIN = 0.0005  # seconds between two looks whether a step is done; it takes less
_log = logging.getLogger("ipclocker")


class Task:
    """Steps to be taken in the background; `failed` is called if that comes to an end by an error.

    `what` they do is for the log. A task with `at_fork` is stopped before this process is forked, and that is called.
    """

    def __init__(
        self,
        steps: Steps[None],
        failed: Callable[[], object],
        what: str,
        at_fork: Callable[[], object] | None = None,
    ) -> None:
        self.steps = steps
        self.failed = failed
        self.what = what
        self.at_fork = at_fork
        self.stopped = False  # no further step is taken
        self.ended = False  # the thread has nothing to do with it any more
        self.descriptor: int | None = None  # of the socket that it waits for
        self.number = 0  # of the deadline that it waits for


def start(task: Task) -> None:
    """Begin to take the steps of a task. Raises OSError, RuntimeError if there can be no thread; then it is stopped."""
    try:
        _shared.inbox.append(task)
        _shared.notify()
    except BaseException:
        task.stopped = True
        with contextlib.suppress(ValueError, IndexError):  # the thread of another task may have taken it
            _shared.inbox.remove(task)
        raise


def stop(task: Task) -> None:
    """Take no more steps of a task: on return none is being taken, unless this is called from within it.

    It may be called in any thread and more than once. What the task has open is closed a moment later.
    """
    task.stopped = True
    runner = _shared.runner
    if runner is not None and not task.ended:
        _shared.inbox.append(task)
        runner.bell.ring()
    if not is_current():
        _wait_while(lambda: _shared.current is task)


def is_current() -> bool:
    """Tell if this is the background thread, which has to be held up by nothing, as by a destructor."""
    runner = _shared.runner
    return runner is not None and runner.thread.ident == get_ident()


def _wait_while(is_busy: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + _GIVE_UP_AFTER
    # When Python ends it stops all other threads, where they are: nothing more comes of them.
    while is_busy() and time.monotonic() < give_up_at and not sys.is_finalizing():
        time.sleep(_LOOK_AGAIN)


class _Shared:
    """What the background thread and all others of a process share."""

    def __init__(self) -> None:
        self.inbox: deque[Task] = deque()  # what was started or stopped
        self.current: Task | None = None  # whose steps are being taken
        self.paused_until = 0.0  # monotonic; no step is taken before
        self.runners: set[_Runner] = set()  # all that have something open
        self.threads: set[Thread] = set()  # theirs, and those that are ending
        self._elected: dict[str, _Runner] = {}  # one of the runners at most, whose thread takes the steps

    @property
    def runner(self) -> _Runner | None:
        return self._elected.get("runner")

    def elect(self, runner: _Runner) -> bool:
        """Return True for one runner only, until it is dismissed; several may have been made at the same time."""
        return self._elected.setdefault("runner", runner) is runner

    def dismiss(self) -> None:
        self._elected.clear()

    def notify(self) -> None:
        """Wake the thread, or start one. Raises OSError, RuntimeError."""
        runner = self.runner
        if runner is not None:
            runner.bell.ring()
            return
        runner = _Runner(self)
        try:
            self.runners.add(runner)
            self.threads = {thread for thread in list(self.threads) if thread.is_alive()} | {runner.thread}
            runner.thread.start()
        except BaseException as problem:
            self.runners.discard(runner)
            if isinstance(problem, Exception):  # else it may have been started
                runner.close()
            raise

    @contextlib.contextmanager
    def stepping(self, task: Task) -> Iterator[None]:
        """Let all others see that the steps of a task are being taken, and none of them while it is paused."""
        self.current = task
        while time.monotonic() < self.paused_until:
            self.current = None
            time.sleep(_LOOK_AGAIN)
            self.current = task
        try:
            yield
        finally:
            self.current = None


class _Bell:
    """A pipe that wakes a selector.

    It is closed with the last reference to it: who rings at that moment must not write to what has its number next.
    """

    _ends: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._ends = os.pipe()
        self.listen_at, self._ring_at = self._ends
        os.set_blocking(self._ring_at, False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full of rings that are not heard yet
            os.write(self._ring_at, b".")

    def hear(self) -> None:
        os.read(self.listen_at, 65_536)

    def close(self) -> None:
        ends, self._ends = self._ends, ()
        for end in ends:
            os.close(end)

    __del__ = close


class _Runner:
    """A thread that takes the steps of the tasks. Raises OSError if there are no descriptors left for it."""

    def __init__(self, shared: _Shared) -> None:
        self.tasks: set[Task] = set()
        self.bell = _Bell()
        try:
            self.selector = selectors.DefaultSelector()
        except BaseException:
            self.bell.close()
            raise
        self.selector.register(self.bell.listen_at, selectors.EVENT_READ)
        self.thread = Thread(target=self._run, name="ipclocker", daemon=True)
        self._shared = shared
        self._deadlines: list[tuple[float, int, Task]] = []  # a heap; void if the task has another number by now
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self.selector.close()
        self.bell.close()

    def _run(self) -> None:
        shared = self._shared
        try:
            while shared.elect(self):
                self._serve()
                shared.dismiss()
                if not shared.inbox:  # who brings something has seen that there is no thread, or it is seen here
                    break
        except BaseException:  # noqa: BLE001 - nobody else could tell of it
            shared.dismiss()
            _log.exception("the background thread ends with an error, and all that it does")
            for task in [*self.tasks, *shared.inbox]:
                self._fail(task)
        finally:
            self.selector.close()  # the bell is closed with the last reference to it
            shared.runners.discard(self)

    def _serve(self) -> None:
        """Take steps until there is no task."""
        while self._take_in():
            left = self._deadlines[0][0] - time.monotonic() if self._deadlines else _LONGEST_WAIT
            for key, _ in self.selector.select(max(0.0, min(left, _LONGEST_WAIT))):
                if key.data is None:
                    self.bell.hear()
                else:
                    self._advance(key.data, True)
            now = time.monotonic()
            while self._deadlines and self._deadlines[0][0] <= now:
                _, number, task = heapq.heappop(self._deadlines)
                if task.number == number:
                    self._advance(task, False)

    def _take_in(self) -> bool:
        """Begin what was started, end what was stopped; False if there is no task."""
        inbox = self._shared.inbox
        while inbox:
            task = inbox.popleft()
            if not task.ended:
                self.tasks.add(task)
                self._advance(task, None)
        return bool(self.tasks)

    def _advance(self, task: Task, answer: bool | None) -> None:
        """Take the steps of a task up to where it has to wait; None begins it."""
        self._stop_waiting(task)
        with self._shared.stepping(task):
            try:
                if not task.stopped:
                    self._wait_for(task, task.steps.send(answer))  # type: ignore[arg-type]
                if not task.stopped:
                    return
            except StopIteration:
                pass
            except Exception:  # noqa: BLE001 - it is no reason to end the others
                _log.exception("%s ends with an error", task.what)
                task.failed()
            self._end(task)

    def _wait_for(self, task: Task, awaited: Awaited) -> None:
        sock, events, deadline = awaited
        if sock is not None:
            reading = selectors.EVENT_READ if events & READ else 0
            writing = selectors.EVENT_WRITE if events & WRITE else 0
            task.descriptor = self.selector.register(sock.fileno(), reading | writing, task).fd
        task.number = next(self._numbers)
        heapq.heappush(self._deadlines, (deadline, task.number, task))
        if len(self._deadlines) > 2 * len(self.tasks) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[2].number == entry[1]]
            heapq.heapify(self._deadlines)

    def _stop_waiting(self, task: Task) -> None:
        """Take it off the selector, before its next step closes the socket: the number may then be another's."""
        descriptor, task.descriptor, task.number = task.descriptor, None, 0
        if descriptor is not None:
            self.selector.unregister(descriptor)

    def _end(self, task: Task) -> None:
        self._stop_waiting(task)
        task.stopped = task.ended = True
        self.tasks.discard(task)
        try:
            task.steps.close()
        except Exception:  # noqa: BLE001 - as above
            _log.exception("%s ends with an error", task.what)

    def _fail(self, task: Task) -> None:
        with self._shared.stepping(task), contextlib.suppress(Exception):
            if not task.stopped:
                task.failed()
            task.stopped = task.ended = True
            task.steps.close()


# Forks


def _before_fork() -> None:
    if is_current():
        return
    for task in _tasks(_shared):
        if task.at_fork is not None:
            stop(task)
            task.at_fork()
    threads = list(_shared.threads)
    _wait_while(lambda: any(thread.is_alive() and not _is_needed(thread) for thread in threads))
    for thread in threads:
        if thread.ident is not None:
            thread.join(0.0)  # if it has ended, until the system knows of it (from Python 3.13 on)
    _shared.paused_until = time.monotonic() + _GIVE_UP_AFTER
    _wait_while(lambda: _shared.current is not None)


def _is_needed(thread: Thread) -> bool:
    runner = _shared.runner
    return runner is not None and runner.thread is thread and not all(task.stopped for task in _tasks(_shared))


def _after_fork_in_parent() -> None:
    _shared.paused_until = 0.0


def _after_fork_in_child() -> None:
    global _shared
    copied, _shared = _shared, _Shared()
    for task in _tasks(copied):
        task.stopped = task.ended = True
        with contextlib.suppress(Exception):
            task.steps.close()
    for runner in copied.runners:
        runner.close()


def _tasks(shared: _Shared) -> list[Task]:
    running = [task for runner in list(shared.runners) for task in list(runner.tasks)]
    return [*running, *list(shared.inbox)]


_shared = _Shared()
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
