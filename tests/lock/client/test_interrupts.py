"""Ctrl-C between any two steps of a Locker: it knows what it holds, gives it back, and is of use again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from typing import Callable

import pytest

from ipclocker import Locker

from ...support.interrupt import Interrupt
from ...support.servers import ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a socket that was just made is left to Python
STRIDE = 31  # so many steps from one interrupt to the next


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


def locker(server: ThreadServer) -> Locker:
    return Locker("x", host="127.0.0.1", port=server.port, connect_tries=1)


def steps_of(server: ThreadServer, use: Callable[[Locker], object], prepare: Callable[[Locker], object]) -> int:
    lock = locker(server)
    prepare(lock)
    with Interrupt(0) as interrupt:
        use(lock)
    lock.unlock()
    return interrupt.steps


def isolated(call: Callable[[Locker], object], lock: Locker) -> Iterator[object]:
    """Call it in a generator, which has its own exception that is being handled.

    An interrupt by a trace function, at the end of an `except`, leaves that one in place, unlike a signal's handler.
    """
    yield call(lock)


def use_with(lock: Locker) -> None:
    with lock:
        pass


def get_and_release(lock: Locker) -> bool:
    with lock:
        return lock.locked()


def use_nested(lock: Locker) -> None:
    with lock, lock:
        pass


def warm(lock: Locker) -> None:
    with lock:
        pass


USES: dict[str, tuple[Callable[[Locker], object], Callable[[Locker], object]]] = {
    "acquire": (Locker.acquire, lambda lock: None),
    "acquire on a kept connection": (Locker.acquire, warm),
    "lock": (Locker.lock, warm),
    "release": (Locker.release, Locker.acquire),
    "unlock": (Locker.unlock, Locker.acquire),
    "with": (use_with, warm),
    "a with in a with": (use_nested, warm),
    "renew": (Locker.lock, Locker.lock),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("end", ["unlock", "end of the object"])
def test_an_interrupt_at_any_step_leaves_nothing_behind(server: ThreadServer, use: str, end: str) -> None:
    call, prepare = USES[use]
    steps = steps_of(server, call, prepare)
    assert steps > 100
    for at in range(1 + 5 * len(use + end) % STRIDE, steps, STRIDE):
        lock = locker(server)
        prepare(lock)
        with Interrupt(at):
            next(isolated(call, lock))
        if end == "unlock":
            lock.unlock()
            assert server.holders() == {}, f"interrupted at step {at} of {steps}"
            assert lock.acquire(timeout=DEADLINE)
            assert server.holders()
            lock.release()
            with in_thread(partial(get_and_release, lock)) as got:
                wait_for(lambda: got, f"interrupted at step {at}: another thread")
        else:
            del lock
            gc.collect()
            wait_for(lambda: not server.holders(), f"interrupted at step {at} of {steps}")
    gc.collect()  # here, where a socket that was not closed is no error
