"""Requests for locks of a process: which are the same, and what they may differ in."""

from __future__ import annotations

import json

import pytest

from ipclocker.lock.client.settings import LockSettings
from ipclocker.run.for_process.terms import Wanted


def wanted(lock: str = "a", **more: object) -> Wanted:
    given: dict[str, object] = {"host": "h", "port": 1, "lock": lock.split(":"), "timeout": 0, **more}
    return Wanted.of(LockSettings(**given))


def test_it_goes_through_json() -> None:
    one = wanted("a:b\udcff", all=True, lease=5)
    assert Wanted.from_json(json.loads(json.dumps(one))) == one


@pytest.mark.parametrize("broken", [[], "abcd", [1, 2, 3, 4], [["a"], True, "h", [1]], [["a"], True, "h", ["x", 0]]])
def test_what_makes_no_sense(broken: list[object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Wanted.from_json(broken)


def test_the_key_is_that_of_the_locks() -> None:
    assert wanted(lease=5).key == wanted().key
    others = [wanted("b"), wanted("a:b"), wanted("a:b", all=True), wanted(port=2), wanted(host="g"), wanted(path="/s")]
    assert len({one.key for one in [wanted(), *others]}) == 7


@pytest.mark.parametrize(
    ("asked", "together", "first", "held", "met"),
    [
        ("a", False, "a", "", True),
        ("a", False, "a:b", "", False),
        ("a", False, "a:b", "a", True),
        ("b", False, "a:b", "a", False),
        ("b:a", False, "a:b", "a", True),
        ("a:b", True, "a", "a", False),
        ("a:b", True, "a:b", "a b", True),
        ("a", True, "a:b", "a b", True),
    ],
)
def test_what_another_one_has(asked: str, together: bool, first: str, held: str, met: bool) -> None:
    assert wanted(asked, all=together).is_met_by(wanted(first), held.split()) is met


def test_another_server_is_another_lock() -> None:
    assert not wanted().is_met_by(wanted(host="g"), ["a"])


def test_differences() -> None:
    assert wanted(lease=5).terms.differences(wanted(lease=5).terms) == ""
    assert wanted(timeout=None, lease=5).terms.differences(wanted(timeout=60).terms) == (
        "--lease is 0 there, not 5, --hold-timeout is 60 there, not 0"
    )
