"""What is remembered for a while, and how much of it."""

from __future__ import annotations

from ipclocker.lock.server.recent import Recent


def test_each_is_remembered_for_its_time_from_when_it_was_put_last() -> None:
    recent: Recent[str, int] = Recent(10, 100)
    recent.put("a", 1, 0)
    recent.put("b", 2, 5)
    recent.put("a", 3, 6)
    assert recent.get("a", 15.9) == 3 and recent.get("b", 14.9) == 2
    assert recent.get("b", 15) is None and recent.get("a", 16) is None and recent.get("c", 0) is None


def test_what_is_taken_is_forgotten() -> None:
    recent: Recent[str, int] = Recent(10, 100)
    recent.put("a", 1, 0)
    assert recent.pop("a", 5) == 1 and recent.pop("a", 5) is None and len(recent) == 0


def test_of_too_many_the_oldest_are_forgotten_and_in_time_all_that_are_over() -> None:
    recent: Recent[int, int] = Recent(10, 100)
    for number in range(1000):
        recent.put(number, number, 0)
    assert len(recent) == 100 and recent.get(899, 1) is None and recent.get(900, 1) == 900
    for number in range(100):
        recent.put(-number, number, 20)
    assert len(recent) <= 100 and recent.get(999, 20) is None and recent.get(-99, 20) == 99
    recent.put(1, 1, 40)
    recent.put(2, 2, 40)
    assert len(recent) < 100
