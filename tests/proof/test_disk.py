"""What was answered is on disk: seen by strace, and by what is left after kills and power cuts."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipclocker.errors import StateError

from .outages import cut_power, kill_at_each, traced_run
from .planted import before_main
from .trace import Traced, need_strace, not_awaited, requests


@pytest.fixture(autouse=True)
def strace() -> None:
    need_strace()


def test_a_flush_lies_between_each_change_and_its_answer(tmp_path: Path) -> None:
    traced, calls = traced_run(tmp_path)
    assert len(requests(calls)) == 3 * 18
    assert not_awaited(calls, traced.state) == []


@pytest.mark.parametrize("fault", ["not_flushed", "not_awaited"])
def test_a_flush_that_is_missing_is_found(tmp_path: Path, fault: str) -> None:
    traced, calls = traced_run(tmp_path, before=before_main(fault))
    assert len(not_awaited(calls, traced.state)) > 10


def test_power_cuts(tmp_path: Path, dice: random.Random) -> None:
    traced, calls = traced_run(tmp_path)
    cut_power(traced, calls, tmp_path, dice, 60)


@pytest.mark.parametrize("fault", ["not_flushed", "not_awaited", "releases_forgotten"])
def test_a_power_cut_that_loses_something_is_found(tmp_path: Path, dice: random.Random, fault: str) -> None:
    traced, calls = traced_run(tmp_path, before=before_main(fault))
    with pytest.raises((AssertionError, StateError), match=r"where there may be|more holders"):
        cut_power(traced, calls, tmp_path, dice, 60)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The folder of a state that is made, and has nothing in it."""
    with Traced(tmp_path) as traced:
        assert traced.await_it(), traced.said()
    return traced.state.parent


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_kill_at_each_write(tmp_path: Path, prepared: Path, call: str) -> None:
    """strace counts for each thread, so the one that commits comes to its first calls only if the file is made."""
    with ThreadPoolExecutor(2) as both:
        runs = [both.submit(kill_at_each, tmp_path / "new", call, None)]
        runs += [both.submit(kill_at_each, tmp_path / "made", call, prepared)]
        assert min(run.result() for run in runs) >= 5


@pytest.mark.parametrize("fault", ["not_awaited", "releases_forgotten"])
def test_a_kill_that_loses_something_is_found(tmp_path: Path, prepared: Path, fault: str) -> None:
    with pytest.raises((AssertionError, StateError), match=r"where there may be|more holders"):
        kill_at_each(tmp_path / "made", "pwrite64", prepared, before_main(fault))
