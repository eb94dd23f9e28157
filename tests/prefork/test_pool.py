"""Which workers there shall be, on a clock that the test moves."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ipclocker.prefork.pool import READY_WITHIN, Pool


class Play:
    """A pool whose wishes are granted at once; workers are numbered as they are started."""

    def __init__(self, size: int, start_delay: float = 0.0, up_after: float = 1.0, rolling: bool = True) -> None:
        self.pool = Pool(lambda: 0.0)
        self.pool.start_delay, self.pool.up_after, self.pool.rolling = start_delay, up_after, rolling
        self.pool.resize(size)
        self.now = 1000.0
        self.alive: list[int] = []
        self.told: list[int] = []
        self.last = 0
        self.births: list[float] = []
        self.speak = False
        self.go(0.0)

    def go(self, seconds: float) -> None:
        """Let time pass, and do what is due on its way."""
        until = self.now + seconds
        while True:
            self.told += self.pool.take_over(self.now)
            while self.pool.wants(self.now):
                self.last += 1
                self.pool.started(self.last, self.now)
                self.alive.append(self.last)
                self.births.append(self.now)
                if self.speak:
                    self.pool.said_ready(self.last)
            self.told += self.pool.take_over(self.now)
            change = self.pool.next_change()
            if change > until:
                break
            self.now = max(self.now, change)
        self.now = until

    def end(self, pid: int, well: bool = True, served: bool = False, asked: bool = False) -> float | None:
        """A worker ends; nothing is started yet. The pause if it failed."""
        self.alive.remove(pid)
        return self.pool.ended(pid, self.now, well=well, served=served, asked=asked)

    def end_told(self) -> None:
        """All that were told to stop do so."""
        for pid in self.told:
            if pid in self.alive:
                assert self.end(pid) is None


def test_as_many_as_are_wanted() -> None:
    play = Play(3)
    assert play.alive == [1, 2, 3]
    assert play.pool.next_change() == inf


def test_starts_are_a_delay_apart() -> None:
    play = Play(3, start_delay=2.0)
    play.go(10.0)
    assert play.births == [1000.0, 1002.0, 1004.0]


def test_one_that_ends_well_after_a_good_run_is_replaced_at_once() -> None:
    play = Play(2)
    play.go(1.0)
    assert play.end(1) is None
    play.go(0.0)
    assert play.alive == [2, 3]


def test_one_that_ends_well_after_serving_is_replaced_at_once_however_short_its_life() -> None:
    play = Play(1)
    for pid in range(1, 20):
        assert play.end(pid, served=True) is None
        play.go(0.0)
    assert play.births == [1000.0] * 20


@pytest.mark.parametrize("well", [True, False])
def test_one_that_fails_at_once_is_replaced_after_growing_pauses(well: bool) -> None:
    play = Play(1)
    pauses = []
    for pid in range(1, 12):
        pauses.append(play.end(pid, well=well))
        play.go(play.pool.next_change() - play.now)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])


@pytest.mark.parametrize("well", [True, False])
def test_one_that_somebody_else_tells_to_stop_has_not_failed(well: bool) -> None:
    play = Play(1)
    for _ in range(10):
        assert play.end(play.last, well=well, asked=True) == pytest.approx(0.1)
        play.go(0.1)
    assert play.end(play.last, well=False) == pytest.approx(0.1)
    play.go(0.1)
    assert play.end(play.last, well=False) == pytest.approx(0.2)


def test_a_crash_after_a_good_run_is_answered_with_the_first_pause() -> None:
    play = Play(1)
    for pid in range(1, 5):
        play.go(5.0)
        assert play.end(pid, well=False) == pytest.approx(0.1)
        play.go(0.1)


def test_a_place_does_not_pay_for_another() -> None:
    play = Play(2)
    for pid in (1, 3, 4, 5):
        play.end(pid, well=False)
        play.go(play.pool.next_change() - play.now)
    assert play.end(2, well=False) == pytest.approx(0.1)


def test_a_start_that_fails_is_tried_again() -> None:
    pool = Pool(lambda: 0.0)
    pool.resize(1)
    assert pool.wants(5.0)
    assert pool.start_failed(5.0) == pytest.approx(0.1)
    assert not pool.wants(5.05)
    assert pool.wants(pool.next_change())
    assert pool.start_failed(6.0) == pytest.approx(0.2)


# Renewal


def test_each_is_told_when_its_successor_has_lived_for_a_while() -> None:
    play = Play(2, up_after=1.0)
    play.go(50.0)
    assert play.pool.renew() == []
    play.go(0.0)
    assert (play.alive, play.told) == ([1, 2, 3], [])
    play.go(0.9)
    assert play.told == []
    play.go(0.1)
    assert (play.alive, play.told) == ([1, 2, 3, 4], [1])
    play.go(1.0)
    assert play.told == [1, 2]
    play.end_told()
    play.go(100.0)
    assert (play.alive, play.told) == ([3, 4], [1, 2])


def test_one_that_says_so_is_up_at_once() -> None:
    play = Play(3, up_after=100.0)
    play.speak = True
    play.pool.renew()
    play.go(0.0)
    assert (play.told, play.alive) == ([1, 2, 3], [1, 2, 3, 4, 5, 6])


def test_the_word_is_waited_for_if_the_one_before_has_given_it() -> None:
    play = Play(1, up_after=0.0)
    play.pool.said_ready(1)
    play.pool.renew()
    play.go(10.0)
    assert play.told == []
    play.pool.said_ready(2)
    play.go(0.0)
    assert play.told == [1]


def test_the_word_is_not_waited_for_for_ever() -> None:
    play = Play(1, up_after=0.0)
    play.pool.said_ready(1)
    play.pool.renew()
    play.go(READY_WITHIN)
    assert play.told == [1]


def test_a_program_that_has_become_broken_replaces_nobody() -> None:
    play = Play(2)
    play.go(50.0)
    play.pool.renew()
    for _ in range(8):
        play.go(play.pool.next_change() - play.now)
        play.end(play.last, well=False)
    assert (play.alive, play.told) == ([1, 2], [])
    play.go(60.0)  # repaired
    play.end_told()
    assert play.alive == [play.last - 1, play.last]


def test_one_that_dies_while_it_is_renewed_is_followed_by_its_successor() -> None:
    play = Play(1)
    play.go(50.0)
    play.pool.renew()
    play.go(0.5)
    assert play.end(1, well=False) is None
    play.go(50.0)
    assert (play.alive, play.told) == ([2], [])


def test_one_that_dies_of_itself_before_its_turn_needs_none() -> None:
    play = Play(2)
    play.go(50.0)
    play.pool.renew()
    play.go(0.0)
    play.end(2, well=False)
    play.go(100.0)
    assert play.told == [1]
    assert play.last == 4


def test_renewals_that_come_faster_than_workers_leave_none_out() -> None:
    play = Play(3, up_after=1.0)
    for _ in range(20):
        play.pool.renew()
        play.go(0.5)
        play.end_told()
    assert min(play.alive) > 3
    play.go(100.0)
    play.end_told()
    assert len(play.alive) == 3


def test_all_at_once_if_not_rolling() -> None:
    play = Play(3, rolling=False)
    assert play.pool.renew() == [1, 2, 3]
    assert play.pool.renew() == []
    play.go(10.0)
    assert play.alive == [1, 2, 3]
    assert play.end(2, well=False) is None
    play.go(0.0)
    assert play.alive == [1, 3, 4]


# More and fewer


def test_more_are_started_and_the_last_are_told_to_stop() -> None:
    play = Play(2)
    assert play.pool.resize(4) == []
    play.go(0.0)
    assert play.alive == [1, 2, 3, 4]
    assert sorted(play.pool.resize(1)) == [2, 3, 4]
    play.go(10.0)
    for pid in (2, 3, 4):
        assert play.end(pid, well=False) is None
    play.go(10.0)
    assert play.alive == [1]


def test_a_successor_leaves_with_its_place() -> None:
    play = Play(2)
    play.go(10.0)
    play.pool.renew()
    play.go(0.0)
    assert play.alive == [1, 2, 3]  # 3 is to follow on 1
    assert play.pool.resize(0) == [2, 1, 3]
    assert play.pool.stop() == []


def test_all_are_told_once_when_all_shall_stop() -> None:
    play = Play(2)
    play.go(10.0)
    play.pool.renew()
    play.go(0.0)
    assert sorted(play.pool.stop()) == [1, 2, 3]
    assert play.pool.stop() == []


def test_a_process_that_is_no_worker() -> None:
    play = Play(1)
    assert play.pool.ended(99, 1000.0, well=False) is None
    assert not play.pool.wants(inf)


class Anything(RuleBasedStateMachine):
    """Whatever happens: no more than one successor at a time, and in the end as many workers as are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.play = Play(3)
        self.size = 3

    @rule(size=st.integers(1, 6))
    def resize(self, size: int) -> None:
        self.play.told += self.play.pool.resize(size)
        self.size = size

    @rule()
    def renew(self) -> None:
        self.play.told += self.play.pool.renew()

    @rule(rolling=st.booleans())
    def roll(self, rolling: bool) -> None:
        self.play.pool.rolling = rolling

    @rule(data=st.data(), well=st.booleans(), served=st.booleans(), asked=st.booleans())
    def end(self, data: st.DataObject, well: bool, served: bool, asked: bool) -> None:
        if self.play.alive:
            self.play.end(data.draw(st.sampled_from(self.play.alive)), well, served, asked)

    @rule(data=st.data())
    def speak(self, data: st.DataObject) -> None:
        if self.play.alive:
            self.play.pool.said_ready(data.draw(st.sampled_from(self.play.alive)))

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 1.0, 31.0, 100.0]))
    def go(self, seconds: float) -> None:
        self.play.go(seconds)

    @invariant()
    def are_not_too_many(self) -> None:
        staying = [pid for pid in self.play.alive if pid not in self.play.told]
        assert len(staying) <= self.size + 1
        assert len(self.play.told) == len(set(self.play.told))

    def teardown(self) -> None:
        for _ in range(10):
            self.play.go(1000.0)
            self.play.end_told()
        self.play.go(0.0)
        assert len(self.play.alive) == self.size


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
