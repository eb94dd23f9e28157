"""The event loop: timers, descriptors and signals, in their turns."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from math import inf

import pytest

from ipclocker.net.loop import READ, WRITE, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    made.call_at(made.now + 15, made.stop)  # only if something is broken
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_timers_go_off_in_their_order_and_not_early(loop: Loop) -> None:
    begin = time.monotonic()
    fired: list[tuple[float, float]] = []
    for delay in (0.06, 0.02, 0.04, 0.0, -5.0):
        loop.call_at(begin + delay, lambda delay=delay: fired.append((delay, time.monotonic() - begin)))  # type: ignore[misc]
    loop.call_at(begin + 0.08, loop.stop)
    loop.run()
    assert [delay for delay, _ in fired] == [-5.0, 0.0, 0.02, 0.04, 0.06]
    assert all(when >= delay for delay, when in fired)


def test_timers_of_one_time_go_off_in_the_order_in_which_they_were_set(loop: Loop) -> None:
    fired: list[int] = []
    for number in range(20):
        loop.call_at(loop.now, lambda number=number: fired.append(number))  # type: ignore[misc]
    loop.call_at(loop.now, loop.stop)
    loop.run()
    assert fired == list(range(20))


def test_a_forked_process_leaves_a_loop_to_its_parent(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    heard: list[str] = []
    before = len(os.listdir("/dev/fd"))
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("signal"))
    loop.watch(ours, READ, lambda events: heard.append(ours.recv(10).decode()))
    signal.raise_signal(signal.SIGUSR1)  # waits in the parent's loop
    child = os.fork()
    if child == 0:
        loop.detach_after_fork()
        right = signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL and len(os.listdir("/dev/fd")) <= before - 3
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    theirs.send(b"bytes")
    while len(heard) < 2:
        loop.turn()
    assert sorted(heard) == ["bytes", "signal"]


def test_a_cancelled_timer_does_not_go_off(loop: Loop) -> None:
    timer = loop.call_at(loop.now, lambda: pytest.fail("it was cancelled"))
    timer.cancel()
    timer.cancel()
    loop.call_at(loop.now, loop.stop)
    loop.run()


def test_a_timer_may_cancel_the_next_and_set_another(loop: Loop) -> None:
    fired = []

    def first() -> None:
        second.cancel()
        loop.call_at(loop.now, loop.stop)
        fired.append("first")

    loop.call_at(loop.now, first)
    second = loop.call_at(loop.now, lambda: fired.append("second"))
    loop.run()
    assert fired == ["first"]


def test_a_timer_that_a_tick_sets_goes_off_in_time() -> None:
    """Though nothing else happens."""
    went_off: list[float] = []
    ticks: list[float] = []

    def go_off() -> None:
        went_off.append(time.monotonic())
        ticking.stop()

    def tick(now: float) -> float:
        if not ticks:
            ticking.call_at(now + 0.05, go_off)
        ticks.append(now)
        return now + 15

    ticking = Loop(tick)
    ticking.run()
    ticking.close()
    assert went_off[0] - ticks[0] < 10


def test_tick_says_when_it_wants_to_be_next() -> None:
    ticks: list[float] = []

    def tick(now: float) -> float:
        ticks.append(now)
        if len(ticks) == 4:
            ticking.stop()
        return now + 0.02

    ticking = Loop(tick)
    ticking.run()
    ticking.close()
    assert all(0.02 <= later - earlier < 5 for earlier, later in zip(ticks, ticks[1:]))


def test_a_far_time_and_no_time_at_all_are_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    for far in (inf, 1e300):
        waits = Loop(lambda now, far=far: far)  # type: ignore[misc]
        pair[1].send(b"x")
        waits.watch(pair[0], READ, lambda events, waits=waits: waits.stop())  # type: ignore[misc]
        waits.run()
        waits.close()
        pair[0].recv(1)


def test_a_descriptor_is_reported_while_it_is_ready(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    seen: list[int] = []

    def ready(events: int) -> None:
        seen.append(events)
        if len(seen) == 1:
            loop.change(ours, READ, ready)
            theirs.send(b"xy")
        elif ours.recv(1) == b"y":
            loop.unwatch(ours)
            loop.stop()

    loop.watch(ours, WRITE, ready)
    loop.run()
    assert seen == [WRITE, READ, READ]


def test_a_descriptor_that_another_callback_forgot_is_skipped_in_the_same_turn(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []
    replacement: list[socket.socket] = []

    def ready(number: int) -> None:
        called.append(number)
        pairs[number][0].recv(1)
        other = pairs[1 - number][0]
        loop.unwatch(other)
        other.close()
        replacement.extend(socket.socketpair())  # gets the number of the one that was closed
        loop.watch(replacement[0], WRITE, lambda events: loop.stop())

    for number, (ours, theirs) in enumerate(pairs):
        theirs.send(b"x")
        loop.watch(ours, READ, lambda events, number=number: ready(number))  # type: ignore[misc]
    loop.run()
    assert len(called) == 1
    for sock in [*replacement, *(sock for both in pairs for sock in both)]:
        sock.close()


def test_signals_are_dealt_with_in_the_loops_own_time_and_handlers_come_back() -> None:
    loop = Loop()

    def mine(number: int, frame: object) -> None:
        kept.append(number)

    def second() -> None:
        seen.append("two")
        loop.stop()

    kept: list[int] = []
    seen: list[str] = []
    before = signal.signal(signal.SIGUSR1, mine)
    try:
        loop.on_signal(signal.SIGUSR1, lambda: seen.append("one"))
        loop.on_signal(signal.SIGUSR2, second)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == []
        loop.call_at(loop.now + 15, loop.stop)
        loop.call_at(loop.now + 0.05, lambda: os.kill(os.getpid(), signal.SIGUSR2))
        loop.run()
        assert seen == ["one", "two"] and kept == []
        os.kill(os.getpid(), signal.SIGUSR1)  # after the last turn: it is for whoever comes next
        loop.close()
        assert kept == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_stop_ends_it_at_the_end_of_the_turn_and_it_may_run_again(loop: Loop) -> None:
    turns: list[int] = []
    for _ in range(2):
        loop.call_at(loop.now, lambda: turns.append(1))
        loop.call_at(loop.now, loop.stop)
        loop.run()
    assert turns == [1, 1]


def test_a_fault_in_one_place_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*details: object) -> float:
        raise OverflowError("planted")

    loop = Loop(tick=fail)
    loop.call_at(0, fail)  # type: ignore[arg-type]
    loop.call_at(0, loop.stop)
    loop.run()
    loop.close()
    assert caplog.text.count("OverflowError: planted") == 2
