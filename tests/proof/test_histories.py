"""What real clients of a real server saw: it can be told as one thing after the other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ..support.servers import Lockerd
from .linearizability import NotLinearizable
from .planted import before_main
from .recorded import Processes, Where, over_restarts, record_lockers, record_queue


def test_lockers(tmp_path: Path, dice: random.Random) -> None:
    """One process of which is killed."""

    def kill_one(processes: Processes) -> None:
        processes.await_lines(dice.randrange(50, 150))
        processes.kill(dice)

    with Lockerd("--state", "none") as server:
        checked = record_lockers(Where(str(server.port)), tmp_path, dice, disturb=kill_one)
    assert checked.grants > 50


def test_waiters_in_their_order(tmp_path: Path, dice: random.Random) -> None:
    with Lockerd("--state", "none") as server:
        checked = record_queue(server.address, tmp_path, dice)
    assert checked.grants > 20


def test_restarts(tmp_path: Path, dice: random.Random) -> None:
    assert over_restarts(tmp_path, dice, restarts=4).grants > 50


# That these would find what they look for


def test_two_grants_at_once_are_found(tmp_path: Path, dice: random.Random) -> None:
    with Lockerd("--state", "none", before=before_main("granted_twice")) as server, pytest.raises(NotLinearizable):
        record_lockers(Where(str(server.port)), tmp_path, dice)


def test_a_broken_order_is_found(tmp_path: Path, dice: random.Random) -> None:
    late_first = before_main("last_come_first_served")
    with Lockerd("--state", "none", before=late_first) as server, pytest.raises(NotLinearizable):
        record_queue(server.address, tmp_path, dice)


@pytest.mark.parametrize(("fault", "seen"), [("grants_forgotten", "impossible"), ("tokens_begin_anew", "token")])
def test_what_a_restart_forgets_is_found(tmp_path: Path, dice: random.Random, fault: str, seen: str) -> None:
    with pytest.raises(AssertionError, match=seen):
        for attempt in range(5):  # whether the server is killed at a telling moment is left to chance
            folder = tmp_path / str(attempt)
            folder.mkdir()
            over_restarts(folder, dice, restarts=4, before=before_main(fault))
