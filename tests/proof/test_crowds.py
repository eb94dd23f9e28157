"""Crowds in short: what `make torture` does for long, and that it would find the faults that it looks for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .chaos import CUTS, KILLS, RECALLS, STOPS, WATCHDOGS, Chaos, torment
from .crowd import Setting, Stuck, built, need_hosts, new_crowd, with_fault


def test_kills_and_stops(built_file: Path, cache: Path, dice: random.Random) -> None:
    setting = Setting(built(built_file), built(built_file))
    with new_crowd(setting, built_file, cache, dice) as crowd:
        chaos = Chaos(crowd, dice, [*KILLS, *STOPS], pause=0.1, long=0.0)
        print(torment(crowd, chaos, 3.0, lambda so_far: so_far.grants > 15 and min(so_far.kills, so_far.stops) > 5))


def test_leases_on_hosts_that_are_cut_off(built_file: Path, cache: Path, dice: random.Random) -> None:
    need_hosts()
    setting = Setting(built(built_file), built(built_file), lease=True, families=0.3, long=0.25, longest=4.0)
    faults = [*KILLS, *STOPS, *WATCHDOGS, *CUTS, *CUTS, *RECALLS]
    with new_crowd(setting, built_file, cache, dice, hosts=3) as crowd:
        chaos = Chaos(crowd, dice, faults, pause=0.3)
        print(torment(crowd, chaos, 7.0, lambda so_far: so_far.grants > 10 and min(so_far.kills, so_far.cuts) > 2))


def test_odd_places(built_file: Path, cache: Path, dice: random.Random) -> None:
    need_hosts()
    setting = Setting(built(built_file), built(built_file), odd=0.6, long=0.3)
    with new_crowd(setting, built_file, cache, dice) as crowd:
        chaos = Chaos(crowd, dice, [*KILLS, *STOPS], pause=0.2, long=0.0)
        print(torment(crowd, chaos, 3.0, lambda so_far: so_far.grants > 15))


# That these would find what they look for


@pytest.mark.parametrize("fault", ["granted_twice", "grants_forgotten", "tokens_begin_anew"])
def test_two_at_once_are_found(built_file: Path, cache: Path, dice: random.Random, fault: str) -> None:
    setting = Setting(built(built_file), with_fault(fault), names=1, workers=5, long=0.5)
    with new_crowd(setting, built_file, cache, dice) as crowd:
        # A server that was started again keeps what comes free for two seconds: it has to live for longer.
        chaos = Chaos(crowd, dice, ["kill the server"], pause=4.0)
        with pytest.raises(AssertionError, match="two at once, or a token that does not grow"):
            torment(crowd, chaos, 60.0)


def test_another_boot_that_is_taken_for_the_end_is_found(built_file: Path, cache: Path, dice: random.Random) -> None:
    need_hosts()
    setting = Setting(built(built_file), with_fault("boots_mistaken"), names=1, workers=4, odd=1.0, long=1.0)
    with new_crowd(setting, built_file, cache, dice) as crowd:
        chaos = Chaos(crowd, dice, ["stop a command"], pause=1.0, long=0.0)
        with pytest.raises(AssertionError, match="two at once"):
            torment(crowd, chaos, 30.0)


def test_a_lock_that_nobody_gets_is_found(built_file: Path, cache: Path, dice: random.Random) -> None:
    setting = Setting(built(built_file), with_fault("freed_to_nobody"), names=1, patience=3.0)
    with new_crowd(setting, built_file, cache, dice) as crowd, pytest.raises(Stuck):
        torment(crowd, Chaos(crowd, dice, ["stop a command"], pause=1.0, long=0.0), 3.0)


def test_a_lease_that_is_not_checked_by_its_holder_is_found(built_file: Path, cache: Path, dice: random.Random) -> None:
    need_hosts()
    setting = Setting(with_fault("lease_not_checked"), built(built_file), 1, 2, lease=True, long=1.0, longest=30.0)
    with new_crowd(setting._replace(at_home=False), built_file, cache, dice, hosts=3) as crowd:
        chaos = Chaos(crowd, dice, ["cut", "unplug"], pause=0.5, long=1.0)
        with pytest.raises(AssertionError, match="two at once"):
            torment(crowd, chaos, 60.0)


def test_a_holder_that_nobody_looks_for_is_found(built_file: Path, cache: Path, dice: random.Random) -> None:
    setting = Setting(built(built_file), with_fault("silence_frees_at_once"), 1, 4, lease=True, long=1.0, longest=30.0)
    with new_crowd(setting, built_file, cache, dice) as crowd:
        chaos = Chaos(crowd, dice, ["freeze a job"], pause=0.5, long=1.0)
        with pytest.raises(AssertionError, match="two at once"):
            torment(crowd, chaos, 60.0)
