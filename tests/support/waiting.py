"""Waiting for what is to happen, with an end to it: one time limit for all tests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Callable, TypeVar

from ipclocker.net.loop import Loop

T = TypeVar("T")
DEADLINE = 60.0  # seconds; reached only when something is broken, so it is long enough for a machine under load
_PAUSE = 0.005  # seconds between two looks: short beside what a test takes, long beside a look at /proc


def wait_for(what: Callable[[], T], description: str = "") -> T:
    """Ask again and again until the answer is true, and return it; an AssertionError after DEADLINE."""
    deadline = time.monotonic() + DEADLINE
    while not (answer := what()):
        assert time.monotonic() < deadline, f"waited in vain: {description}"
        time.sleep(_PAUSE)
    return answer


def turn_until(loop: Loop, what: Callable[[], object], description: str = "") -> None:
    """Turn the loop until the answer is true; an AssertionError after DEADLINE."""
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, f"waited in vain: {description}"
        loop.turn(0.01)


@contextlib.contextmanager
def in_thread(call: Callable[[], T]) -> Iterator[list[T]]:
    """Run a call beside the test; what it returned is in the list at the end of the `with`."""
    results: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as problem:  # noqa: BLE001 - raised in the thread of the test
            problems.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield results
    thread.join(DEADLINE)
    assert not thread.is_alive(), "the call did not return"
    for problem in problems:
        raise problem
