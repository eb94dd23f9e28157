"""Locker in asyncio: one holder at a time, a loop that is never held up, and waits that are cancelled at any moment."""

# mypy: disable-error-code="arg-type, assignment, func-returns-value, no-untyped-call, unused-ignore"

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Callable

import pytest

from ipclocker import LockBusy, Locker, LockLost, NotHeld, ServerUnavailable

from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    wait_for(lambda: not threads_of_calls(), "the end of the threads that ask a server")


def threads_of_calls() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ipclocker async"]


def locker(server: ThreadServer | Lockerd, **parameters: Any) -> Locker:
    return Locker(**{"host": "127.0.0.1", "port": server.port, "connect_tries": 1, "connect_delay": 0.1, **parameters})


def release(lock: Locker, after: float = 0.0) -> bool:
    time.sleep(after)
    lock.release()
    return True


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it in an event loop; an AssertionError if it takes for ever."""

    async def in_time() -> None:
        await asyncio.wait_for(main, DEADLINE)

    asyncio.run(in_time())


def queued(server: ThreadServer, name: str = "lock") -> int:
    return len(server.server.term.service.table.waiters(name.encode()))


async def until(what: Callable[[], object]) -> None:
    """Wait for it while the loop goes on."""
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


async def in_task(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of what another task does."""
    return await asyncio.create_task(coroutine)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait for its end, which is that of a cancelled one."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# As asyncio.Lock


def test_async_with_holds_it(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server, user="me")
        async with lock as entered:
            assert entered is lock and lock.locked()
            assert server.holders() == {"lock": "me"}
        assert not lock.locked() and server.holders() == {}

    run(main())


def test_acquire_async_and_release_async(server: ThreadServer) -> None:
    async def main() -> None:
        lock, other = locker(server), locker(server)
        assert await lock.acquire_async() is True
        assert await other.acquire_async(blocking=False) is False
        assert await other.acquire_async(timeout=0) is False
        assert await other.acquire_async(timeout=0.1) is False
        await lock.release_async()
        assert await other.acquire_async(timeout=DEADLINE) is True
        await other.release_async()
        for arguments in ((False, 1), (True, -2), (True, float("nan"))):
            with pytest.raises(ValueError):
                await lock.acquire_async(*arguments)
        assert server.holders() == {}

    run(main())


def test_entries_of_one_task_count(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server, user="me")
        async with lock:
            async with lock:
                assert await lock.acquire_async()
                await lock.release_async()
            assert lock.locked() and server.holders() == {"lock": "me"}
            with lock:  # the blocking calls are this task's, too
                pass
            assert server.holders() == {"lock": "me"}
        assert server.holders() == {}
        with pytest.raises(NotHeld):
            await lock.release_async()

    run(main())


def test_another_task_or_thread_may_not_release(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server, user="me")
        async with lock:
            with pytest.raises(NotHeld, match="another thread or task"):
                await in_task(lock.release_async())
            with pytest.raises(NotHeld):
                await asyncio.get_running_loop().run_in_executor(None, lock.release)
            asyncio.get_running_loop().call_soon(lambda: pytest.raises(NotHeld, lock.release))  # in no task
            assert await in_task(lock.acquire_async(blocking=False)) is False
            assert await in_task(lock.acquire_async(timeout=0.1)) is False
            assert server.holders() == {"lock": "me"}

    run(main())


def test_what_a_thread_holds_a_task_in_it_does_not(server: ThreadServer) -> None:
    lock = locker(server, user="me")

    async def main() -> None:
        assert await lock.acquire_async(blocking=False) is False
        with pytest.raises(NotHeld):
            await lock.release_async()

    with lock:
        run(main())
        assert server.holders() == {"lock": "me"}
    assert server.holders() == {}


def test_tasks_and_threads_wait_for_each_other(server: ThreadServer) -> None:
    lock = locker(server)

    async def main() -> None:
        await lock.acquire_async()
        with in_thread(lambda: [lock.acquire(), release(lock)]) as got:
            await asyncio.sleep(0.05)
            assert got == []
            await lock.release_async()
            await until(lambda: got)
        with in_thread(lambda: [lock.acquire(), release(lock, 0.2)]):
            await until(lock.locked)
            async with lock:
                assert lock.locked()

    run(main())


def test_busy_is_said(server: ThreadServer) -> None:
    async def main() -> None:
        async with locker(server, user="ann"):
            for parameters in ({"block": False}, {"wait": 0.1}):
                with pytest.raises(LockBusy, match="ann"):
                    async with locker(server, **parameters):
                        pass
        assert queued(server) == 0 and server.holders() == {}

    run(main())


def test_an_error_in_the_body_goes_out_and_the_lock_is_released(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server)
        with pytest.raises(ZeroDivisionError):
            async with lock:
                raise ZeroDivisionError
        assert server.holders() == {}
        with pytest.raises(ZeroDivisionError):  # rather than LockLost
            async with lock:
                locker(server).break_lock()
                raise ZeroDivisionError
        with pytest.raises(LockLost):
            async with lock:
                locker(server).break_lock()
        async with lock:
            assert lock.locked()

    run(main())


def test_a_coroutine_function_under_the_lock(server: ThreadServer) -> None:
    lock = locker(server)
    inside, most = [0], [0]

    @lock
    async def work(number: int, depth: int = 1) -> int:
        """Work."""
        if depth:
            return await work(number, depth - 1)
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        await asyncio.sleep(0.001)
        inside[0] -= 1
        return number

    async def main() -> None:
        assert await asyncio.gather(*map(work, range(20))) == list(range(20))
        assert most == [1] and server.holders() == {}
        assert asyncio.iscoroutinefunction(work) and (work.__name__, work.__doc__) == ("work", "Work.")

    run(main())


def test_a_leased_lock(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server, lease=3)
        async with lock:
            await asyncio.sleep(4)
            assert lock.locked() and not lock.lost.is_set() and server.holders()
        assert server.holders() == {}

    run(main())


# Many tasks


@pytest.mark.parametrize("shared", [True, False], ids=["one Locker", "a Locker for each"])
def test_200_tasks_exclude_each_other_and_the_loop_goes_on(server: ThreadServer, shared: bool) -> None:
    inside, most, done = [0], [0], [0]
    longest = [0.0]

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest[0], last = max(longest[0], now - last), now

    async def work(lock: Locker) -> None:
        async with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            await asyncio.sleep(0)
            inside[0] -= 1
            done[0] += 1

    async def main() -> None:
        one = locker(server)
        ticker = asyncio.create_task(tick())
        await one.acquire_async()
        tasks = [asyncio.create_task(work(one if shared else locker(server))) for _ in range(200)]
        await until(lambda: queued(server) == (0 if shared else 200))
        await asyncio.sleep(3)  # the lock is busy, and all wait
        await one.release_async()
        await asyncio.gather(*tasks)
        await cancelled(ticker)

    run(main())
    assert (most, done) == ([1], [200])
    assert longest[0] < 2, f"the loop was held up for {longest[0]} s"
    assert server.holders() == {} and queued(server) == 0


@pytest.mark.parametrize("shared", [True, False], ids=["one Locker", "a Locker for each"])
def test_a_server_that_dies_while_50_tasks_wait(shared: bool) -> None:
    async def main() -> None:
        with Lockerd() as server:
            holder, one = locker(server), locker(server)
            await holder.acquire_async()
            locks = [one if shared else locker(server) for _ in range(50)]
            tasks = [asyncio.create_task(lock.acquire_async(timeout=8)) for lock in locks]
            await asyncio.sleep(1)
            server.kill()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            # False: the time was over while another task asked with the one Locker
            assert all(isinstance(result, ServerUnavailable) or (shared and result is False) for result in results)
            assert not any(lock.locked() for lock in locks)
            with Lockerd(port=server.port) as again:
                for lock in locks[:3]:
                    async with lock:
                        assert len(again.holders()) == 1
                assert again.holders() == {}
                holder.unlock()

    run(main())


# Waits that are cancelled


def test_a_cancelled_wait_leaves_the_queue(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server)
        async with locker(server):
            for _ in range(3):
                task = asyncio.create_task(lock.acquire_async())
                await until(lambda: queued(server) == 1)
                await cancelled(task)
                assert queued(server) == 0
        assert server.holders() == {}
        assert await lock.acquire_async(timeout=DEADLINE)
        await lock.release_async()

    run(main())


def test_a_cancelled_wait_for_another_task_takes_its_turn_from_nobody(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server)
        async with lock:
            first, second = (asyncio.create_task(lock.acquire_async()) for _ in range(2))
            await asyncio.sleep(0.05)
        first.cancel()  # in the moment in which it is woken
        with contextlib.suppress(asyncio.CancelledError):
            await first
        assert await asyncio.wait_for(second, DEADLINE)
        assert not first.cancelled() or lock.locked()

    run(main())


def test_a_cancellation_is_never_swallowed(server: ThreadServer) -> None:
    """Not even in the very turn of the loop in which the task is woken."""

    async def main() -> None:
        lock = locker(server)

        async def enter() -> None:
            async with lock:
                await asyncio.sleep(0)
                await asyncio.sleep(DEADLINE)

        for turns in range(12):
            await lock.acquire_async()
            task = asyncio.create_task(enter())
            await asyncio.sleep(0.02)
            await lock.release_async()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.done() and task.cancelled()
        assert server.holders() == {}

    run(main())


def test_wait_for_and_its_end(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server)
        async with locker(server):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(lock.acquire_async(), 0.2)
            assert queued(server) == 0
        assert await in_task(asyncio.wait_for(_enter_and_leave(lock), DEADLINE))
        assert server.holders() == {}

    run(main())


async def _enter_and_leave(lock: Locker) -> bool:
    async with lock:
        return lock.locked()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no asyncio.timeout")
def test_asyncio_timeout(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server)
        async with locker(server):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), lock:  # type: ignore[attr-defined, unused-ignore]
                    pass
            assert queued(server) == 0 and not lock.locked()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), lock:  # type: ignore[attr-defined, unused-ignore]
                await asyncio.sleep(DEADLINE)
        assert server.holders() == {}

    run(main())


@pytest.mark.parametrize("lease", [0, 3])
@pytest.mark.parametrize("twice", [False, True])
def test_a_grant_that_crosses_the_cancellation_is_given_back(server: ThreadServer, lease: int, twice: bool) -> None:
    """At whatever moment between the request and the release the task is cancelled."""
    chance = random.Random(7)

    async def main() -> None:
        locks = [locker(server, lease=lease) for _ in range(3)]
        inside, most = [0], [0]

        async def work(lock: Locker) -> None:
            async with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                try:
                    await asyncio.sleep(chance.choice([0, 0, 0.002]))
                finally:
                    inside[0] -= 1

        for _ in range(120):
            tasks = [asyncio.create_task(work(lock)) for lock in chance.choices(locks, k=3)]
            for task in chance.sample(tasks, 2):
                await asyncio.sleep(chance.uniform(0, 0.006))
                task.cancel()
                if twice:
                    await asyncio.sleep(chance.choice([0, 0, 0.001]))
                    task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                assert task.cancelled() or task.exception() is None
        assert most == [1]
        assert server.holders() == {} and queued(server) == 0
        assert not any(lock.locked() for lock in locks)
        for lock in locks:
            assert await _enter_and_leave(lock)
        assert server.holders() == {}

    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    run(main())
    gc.collect()
    server.turn()
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before + 3, "descriptors are left")  # the background thread's


def test_a_grant_that_arrives_with_two_cancellations_leaves_the_locker_of_use(server: ThreadServer) -> None:
    """The second one comes while the lock is given back; the task goes on."""

    async def main() -> None:
        lock = locker(server)
        start = lock._holding._start
        task: list[asyncio.Task[Any]] = []
        loop = asyncio.get_running_loop()

        def start_and_cancel(*words: Any) -> None:
            start(*words)
            loop.call_soon_threadsafe(task[0].cancel)
            time.sleep(0.2)  # so that it arrives before the result

        release = lock._holding._release

        def release_and_cancel(*words: Any) -> bool:
            loop.call_soon_threadsafe(task[0].cancel)
            time.sleep(0.2)
            return release(*words)

        lock._holding._start = start_and_cancel  # type: ignore[method-assign, assignment]
        lock._holding._release = release_and_cancel  # type: ignore[method-assign, assignment]

        async def stubborn() -> None:
            with pytest.raises(asyncio.CancelledError):
                await lock.acquire_async()
            del lock._holding._start, lock._holding._release
            assert server.holders() == {} and not lock.locked()
            with pytest.raises(NotHeld):
                await lock.release_async()
            assert await asyncio.wait_for(asyncio.create_task(_enter_and_leave(lock)), 10)
            async with lock:
                pass
            assert await asyncio.wait_for(asyncio.create_task(_enter_and_leave(lock)), 10)

        task.append(asyncio.create_task(stubborn()))
        await task[0]

    run(main())


def test_a_cancelled_release_is_done_all_the_same(server: ThreadServer) -> None:
    async def main() -> None:
        lock = locker(server)

        async def work() -> None:
            await lock.acquire_async()
            await lock.release_async()

        for wait in range(30):
            task = asyncio.create_task(work())
            await until(lambda: lock.locked() or task.done())  # noqa: B023
            await asyncio.sleep(wait / 10_000)
            task.cancel()
            await asyncio.wait([task])
            lock.unlock()
            assert server.holders() == {}

    run(main())


def test_a_stopped_server_does_not_hold_up_a_cancellation() -> None:
    async def main() -> None:
        with Lockerd() as server:
            lock, waiting = locker(server), locker(server)
            await lock.acquire_async()
            task = asyncio.create_task(waiting.acquire_async())
            await asyncio.sleep(0.5)
            with server.stopped():
                begin = time.monotonic()
                await cancelled(task)
                assert time.monotonic() - begin < 10
                assert not waiting.locked()
            await lock.release_async()
            assert await waiting.acquire_async(timeout=DEADLINE)
            await waiting.release_async()
            assert server.holders() == {}

    run(main())


def test_a_slow_look_up_does_not_hold_up_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, look_up = threading.Event(), socket.getaddrinfo

    def silent(host: Any, *words: Any, **named: Any) -> Any:
        if host == "slow.example":
            answers.wait(DEADLINE)
        return look_up("127.0.0.1", *words, **named)

    monkeypatch.setattr(socket, "getaddrinfo", silent)

    async def main() -> None:
        task = asyncio.create_task(Locker(host="slow.example", port=1, connect_tries=1).acquire_async())
        await asyncio.sleep(0.2)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=15)
        answers.set()
        assert done

    try:
        run(main())
    finally:
        answers.set()


# Loops that end


def test_asyncio_run_that_ends_takes_back_what_tasks_ask_for(server: ThreadServer) -> None:
    async def main() -> None:
        tasks.extend(asyncio.create_task(lock.acquire_async()) for lock in (one, one, locker(server)))
        await until(lambda: queued(server) == 2)

    tasks: list[asyncio.Task[bool]] = []
    one = locker(server)
    with locker(server):
        run(main())
        assert all(task.cancelled() for task in tasks) and queued(server) == 0
    assert server.holders() == {}
    with one:
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_while_a_task_waits(server: ThreadServer) -> None:
    """Nobody cancels the task: it is never heard of again, and must not get the lock later."""
    lock, holder = locker(server), locker(server)
    holder.lock()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending!"
    tasks = [loop.create_task(lock.acquire_async()) for _ in range(2)]
    loop.run_until_complete(until(lambda: queued(server) == 1))
    loop.close()
    del tasks, loop
    gc.collect()
    wait_for(lambda: queued(server) == 0, "the request is in the queue still")
    wait_for(lambda: not threads_of_calls(), "the thread waits still")
    gc.collect()
    holder.unlock()
    server.turn()
    assert server.holders() == {} and not lock.locked()
    assert lock.acquire(timeout=DEADLINE)
    lock.release()
    assert server.holders() == {}


def test_a_locker_is_of_use_in_one_loop_after_another(server: ThreadServer) -> None:
    lock = locker(server)
    for _ in range(3):
        run(_use(lock))
    assert server.holders() == {}


async def _use(lock: Locker) -> None:
    assert await _enter_and_leave(lock)


def test_loops_of_several_threads_share_a_locker(server: ThreadServer) -> None:
    lock = locker(server)
    inside, most = [0], [0]

    async def work() -> None:
        for _ in range(10):
            async with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                await asyncio.sleep(0)
                inside[0] -= 1

    async def main() -> None:
        await asyncio.gather(work(), work())

    with in_thread(lambda: run(main())), in_thread(lambda: run(main())):
        pass
    assert most == [1] and server.holders() == {}


# Forks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_that_leaves_the_body_by_an_error_does_not_give_back_its_parents_lock(server: ThreadServer) -> None:
    async def main() -> None:
        try:
            async with locker(server, user="me"):
                child = os.fork()
                if not child:
                    signal.alarm(10)  # it ends, whatever happens
                    raise _EndOfChild
                os.waitpid(child, 0)
                assert server.holders() == {"lock": "me"}
        except _EndOfChild:
            os._exit(0)
        assert server.holders() == {}

    run(main())


class _EndOfChild(Exception):
    pass
