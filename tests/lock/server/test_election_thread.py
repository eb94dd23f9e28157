"""One election in this process, on an etcd in memory, whose loop the test turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from math import inf
from typing import Any

import pytest

from ipclocker.lock.server.candidate import Events, Identity
from ipclocker.lock.server.election import Election, now
from ipclocker.lock.storage.etcd_client import EtcdUnavailable
from ipclocker.net.loop import Loop

from ...support.fake_etcd import FakeEtcd
from ...support.waiting import DEADLINE, turn_until, wait_for

TTL = 2  # seconds


class FakeClient:
    """A client of a fake etcd, of which a test takes away what it wants to."""

    def __init__(self) -> None:
        self.etcd = FakeEtcd()
        self.is_closed = False
        self.hangs = threading.Event()
        self.fault: Exception | None = None

    def call(self, path: str, body: Mapping[str, Any] | bytes, deadline: float) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        if self.hangs.is_set():
            wait_for(lambda: not self.hangs.is_set(), "the end of a look-up")  # which knows no deadline
            raise EtcdUnavailable("it took too long")
        self.etcd.pass_time(max(now() - self.etcd.now, 0))
        return self.etcd.call(path, body, 1)

    def close(self) -> None:
        self.is_closed = True


class Elected:
    """An election, its loop, and what was told in that."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.client = FakeClient()
        self.told: list[tuple[str, Any]] = []
        events = Events(*(partial(self._hear, event) for event in Events._fields))
        identity = Identity("host", (), "1.0")
        self.election = Election(self.client, "ipc/", identity, TTL, self.loop.call_from_thread, events)

    def _hear(self, event: str, what: object) -> None:
        self.told.append((event, what))

    def turn_until(self, event: str, count: int = 1) -> Any:
        """Turn the loop until this was told so often; what was told with it."""
        turn_until(self.loop, lambda: [name for name, _ in self.told].count(event) >= count, event)
        return [what for name, what in self.told if name == event][count - 1]


@pytest.fixture
def elected() -> Iterator[Elected]:
    elected = Elected()
    yield elected
    elected.client.hangs.clear()
    elected.election.resign(DEADLINE)
    elected.loop.close()


def test_the_loop_is_told_in_a_turn_of_its_own_and_nothing_after_the_end(elected: Elected) -> None:
    elected.election.start()
    wait_for(lambda: "ipc/leader" in elected.client.etcd.keys, "it to lead")
    assert elected.told == []
    assert elected.election.resign(DEADLINE)
    elected.loop.turn(0.01)
    assert elected.told == [] and elected.client.is_closed and elected.client.etcd.keys == {}


def test_only_the_term_that_is_meant_is_given_up(elected: Elected) -> None:
    elected.election.start()
    term = elected.turn_until("elected")
    elected.election.step_down(term - 1, "an older one")
    calls = elected.client.etcd.calls
    # Two leases, a third of the ttl apart: for longer than a term of a loop that is not seen to turn.
    turn_until(elected.loop, lambda: calls.count("lease/keepalive") >= 14, "it to renew")
    assert elected.told == [("elected", term)]
    elected.election.step_down(term, "this one")
    assert elected.turn_until("lost") == "this one"
    assert elected.election.valid_until(term) == -inf
    assert elected.turn_until("elected", 2) > term
    assert elected.election.valid_until(term) == -inf  # though there is a younger one


def test_a_loop_that_says_that_it_turns_keeps_its_term_though_it_calls_nothing(elected: Elected) -> None:
    elected.election.start()
    term = elected.turn_until("elected")
    end = now() + 2.5 * TTL
    while now() < end:
        elected.election.note_turn(time.monotonic())
        assert elected.election.valid_until(term) != -inf
        time.sleep(0.01)
    elected.loop.turn(0.01)
    assert elected.told == [("elected", term)]


def test_a_loop_that_does_not_turn_loses_its_term_and_hears_of_it_when_it_does(elected: Elected) -> None:
    elected.election.start()
    term = elected.turn_until("elected")
    wait_for(lambda: elected.election.valid_until(term) == -inf, "the term to be over")
    assert elected.told == [("elected", term)]
    assert "has not turned" in elected.turn_until("lost")
    assert elected.turn_until("elected", 2) > term


def test_a_fault_of_ours_costs_the_term_and_not_the_thread(elected: Elected, caplog: pytest.LogCaptureFixture) -> None:
    elected.election.start()
    elected.turn_until("elected")
    elected.client.fault = ZeroDivisionError("planted")
    assert "planted" in elected.turn_until("lost")
    elected.client.fault = None
    elected.turn_until("elected", 2)
    assert "a fault of ours" in caplog.text


def test_the_end_does_not_wait_for_an_etcd_that_hangs(elected: Elected) -> None:
    elected.election.start()
    elected.turn_until("elected")
    elected.client.hangs.set()
    assert not elected.election.resign(0.1)
    elected.client.hangs.clear()
    assert elected.election.resign(DEADLINE) and elected.client.is_closed


def test_one_that_was_never_started_can_be_ended(elected: Elected) -> None:
    assert elected.election.resign()
