"""All of the proofs for a long time, at random: what `make torture SEED=... SECONDS=...` runs.

It says its seed first, then what has happened in each run, and the figures of all in the end. It ends at the first
violation, with exit code 1. With the same seed the dice fall in the same way, but not what they meet.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from ..support import PROJECT
from ..support.servers import Lockerd
from ..support.site import nodes_can_be_made
from .chaos import CUTS, KILLS, RECALLS, STOPS, WATCHDOGS, Chaos, torment
from .crowd import Crowd, Setting, built, new_crowd
from .fail_overs import over_fail_overs
from .linearizability import Undecided
from .outages import cut_power, kill_at_each, traced_run
from .recorded import Clients, Processes, Where, over_restarts, record_lockers, record_queue
from .replicas import Site, machines_can_be_made, new_replicated_crowd
from .storm import HOSTS, LEADER_ENDS, STORM, Storm
from .trace import not_awaited

DEFAULT_SECONDS = 300.0
_CROWD = 30.0  # seconds that a crowd is tormented for, if there are so many left
_FILE = PROJECT / "dist" / "ipclocker"

# A run has a folder, the dice, and the seconds that are left; it yields what it has seen, as names and numbers.
Run = Callable[[Path, random.Random, float], Iterator[tuple[str, int]]]


def crowd_here(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """A crowd on this host, without leases."""
    setting = Setting(built(_FILE), built(_FILE), names=dice.randint(1, 4), workers=dice.randint(4, 10))
    yield from _torment(setting, [*KILLS, *STOPS], 0, 0.1, folder, dice, seconds)


def crowd_on_hosts(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """A crowd with leases, on hosts that are cut off."""
    hosts = dice.randint(2, 4)
    setting = Setting(
        *(built(_FILE), built(_FILE)),
        names=dice.randint(1, 4),
        workers=dice.randint(4, 10),
        lease=True,
        families=dice.choice([0.0, 0.3, 1.0]),
        long=dice.choice([0.1, 0.4]),
        longest=dice.choice([4.0, 12.0]),
    )
    faults = dice.choice([CUTS, [*CUTS, *WATCHDOGS], [*CUTS, *KILLS, *STOPS, *WATCHDOGS, *RECALLS]])
    yield from _torment(setting, [*faults], hosts, dice.choice([0.2, 0.5, 1.5]), folder, dice, seconds)


def crowd_in_odd_places(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """A crowd of which many are where nobody can see them: behind other boot ids, and with a /proc of others."""
    hosts = dice.choice([0, 2, 3])
    lease = dice.choice([False, True])
    setting = Setting(
        *(built(_FILE), built(_FILE)),
        names=dice.randint(1, 3),
        workers=dice.randint(4, 10),
        lease=lease,
        odd=dice.choice([0.3, 0.7, 1.0]),
        long=dice.choice([0.1, 0.4]),
        longest=dice.choice([4.0, 8.0]),
    )
    faults = [*KILLS, *STOPS, *(WATCHDOGS if lease else ()), *(CUTS if lease and hosts else ())]
    yield from _torment(setting, faults, hosts, dice.choice([0.2, 0.5]), folder, dice, seconds)


def _torment(
    setting: Setting, faults: list[str], hosts: int, pause: float, folder: Path, dice: random.Random, seconds: float
) -> Iterator[tuple[str, int]]:
    cache = folder.parent / "cache"
    with new_crowd(setting, _FILE, cache, dice, hosts) as crowd:
        chaos = Chaos(crowd, dice, faults, pause, long=dice.choice([0.1, 0.3, 0.6]))
        yield from _tormented(crowd, chaos, folder, seconds)


def _tormented(crowd: Crowd, chaos: Chaos, folder: Path, seconds: float) -> Iterator[tuple[str, int]]:
    try:
        yield from torment(crowd, chaos, min(seconds, _CROWD))._asdict().items()
    except BaseException:
        kept = folder.parent / "violation"
        shutil.copytree(crowd.folder, kept, ignore=shutil.ignore_patterns("lockerd", "data"))
        print(f"it left its logs in {kept}, and this had happened: {chaos.figures()}; {dict(chaos.done)}")
        raise


def crowd_of_replicas(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """A crowd that asks several lockerd on etcd, in a storm."""
    lease = dice.choice([False, True])
    setting = Setting(
        *(built(_FILE), built(_FILE)),
        names=dice.randint(1, 4),
        workers=dice.randint(4, 8),
        lease=lease,
        families=dice.choice([0.0, 0.3]) if lease else 0.0,
        long=dice.choice([0.1, 0.4]),
        longest=dice.choice([4.0, 12.0]),
        at_home=False,
    )
    crowds = [*KILLS, *STOPS, *(WATCHDOGS if lease else ())]
    faults = dice.choice([STORM, [*STORM, *HOSTS], [*STORM, *(each for each in crowds if "server" not in each)]])
    site = _site(dice)
    with new_replicated_crowd(setting, site, _FILE, folder.parent / "cache", dice) as crowd:
        pause, long = dice.choice([0.5, 1.0, 3.0]), dice.choice([0.1, 0.3, 0.6])
        yield from _tormented(crowd, Storm(crowd, dice, [*faults], pause, long, site.ttl), folder, seconds)


def fail_overs(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """Histories of Lockers over fail-overs."""
    diaries = folder / "diaries"
    diaries.mkdir()
    faults = dice.choice([STORM, [*LEADER_ENDS, "revoke the lease"]])
    cache, count, kind = folder.parent / "cache", dice.randint(2, 5), Clients(processes=2)
    told = over_fail_overs(_FILE, cache, diaries, dice, faults, count, _site(dice), kind)
    yield "operations in histories", told.checked.operations
    yield "histories", 1
    yield from ((name, value) for name, value in told.figures._asdict().items() if name != "grants")


def _site(dice: random.Random) -> Site:
    return Site(dice.randint(2, 3), dice.randint(1, 2), beside=dice.choice([False, True]), ttl=dice.choice([2, 2, 5]))


def histories(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """Histories of Lockers, with kills; of waiters; and over restarts."""

    def kill_two(processes: Processes) -> None:
        for number in range(2):
            processes.await_lines(100 * number + dice.randrange(100))
            processes.kill(dice)

    for part in ("lockers", "waiters", "restarts"):
        (folder / part).mkdir()
    state = dice.choice(["none", str(folder / "state")])
    with Lockerd("--state", state) as server:
        killed = record_lockers(Where(str(server.port)), folder / "lockers", dice, Clients(processes=4), kill_two)
        waited = record_queue(server.address, folder / "waiters", dice, clients=dice.randint(3, 8))
    restarted = over_restarts(folder / "restarts", dice, restarts=dice.randint(1, 5))
    for checked in (killed, waited, restarted):
        yield "operations in histories", checked.operations
        yield "histories", 1


def disk(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """Power cuts, in runs so long at times that the log of changes goes over into the file."""
    rounds = dice.choice([5, 15, 450])
    traced, calls = traced_run(folder, clients=dice.randint(1, 4), rounds=rounds)
    if rounds < 100:
        early = not_awaited(calls, traced.state)
        assert not early, f"answered before it was on disk: {early}"
    cut_power(traced, calls, folder, dice, 200)
    yield "power cuts", 200


def kills(folder: Path, dice: random.Random, seconds: float) -> Iterator[tuple[str, int]]:
    """A kill at each write, and at each flush."""
    for call in ("pwrite64", "fdatasync"):
        yield "kills at a write or flush", kill_at_each(folder, call, None)


_RUNS: list[Run] = [
    crowd_on_hosts,
    crowd_here,
    crowd_in_odd_places,
    crowd_on_hosts,
    histories,
    crowd_of_replicas,
    crowd_in_odd_places,
    crowd_on_hosts,
    fail_overs,
    disk,
    crowd_of_replicas,
    crowd_on_hosts,
    kills,
]


def main(seed: int, seconds: float) -> int:
    """Run one after the other until the time is over; the exit code."""
    print(f"seed {seed}, for {seconds:.0f} s", flush=True)
    begin = time.monotonic()
    totals: Counter[str] = Counter()
    code = number = 0
    scratch = Path(tempfile.mkdtemp(prefix="torture"))
    (scratch / "cache").mkdir()
    runs = _RUNS
    if not nodes_can_be_made():
        print(
            "left out: crowds on hosts that are cut off and in odd places, which take namespaces, so root", flush=True
        )
        runs = [run for run in runs if run not in (crowd_on_hosts, crowd_in_odd_places)]
    if not machines_can_be_made():
        print("left out: several lockerd, which take etcd and namespaces, so root", flush=True)
        runs = [run for run in runs if run not in (crowd_of_replicas, fail_overs)]
    while time.monotonic() < begin + seconds and not code:
        run = runs[number % len(runs)]
        folder = scratch / f"run{number}"
        folder.mkdir()
        print(f"{time.monotonic() - begin:6.0f} s  {run.__name__}", end="", flush=True)
        try:
            figures: Counter[str] = Counter()
            for name, value in run(folder, random.Random(f"{seed} {number}"), begin + seconds - time.monotonic()):
                _count(figures, name, value)
        except Undecided as undecided:
            print(f": too much of a history overlaps to be checked: {undecided}", flush=True)
            totals["undecided"] += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
            print(f": FAILED, run {number} of seed {seed}; its files are in {folder}", flush=True)
            traceback.print_exc()
            totals["failures"] += 1
            code = 1
        else:
            for name, value in figures.items():
                _count(totals, name, value)
            print(f": {_listed(figures)}", flush=True)
        if not code:
            shutil.rmtree(folder)
        number += 1
    print(f"seed {seed}: {_listed(totals)}", flush=True)
    if not code:
        shutil.rmtree(scratch)
    return code


def _count(figures: Counter[str], name: str, value: int) -> None:
    """Add a figure up, or of the longest times keep the longest."""
    figures[name] = max(figures[name], value) if name.startswith("longest") else figures[name] + value


def _listed(figures: Counter[str]) -> str:
    return ", ".join(f"{value} {name}" for name, value in figures.items())


def _arguments() -> tuple[int, float]:
    """The seed and the seconds that were given, or others where there is nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description="Look for locks that are held twice.")
    parser.add_argument("--seed", default="", help="default: one at random")
    parser.add_argument("--seconds", default="", help=f"for how long; default: {DEFAULT_SECONDS:.0f}")
    given = parser.parse_args()
    return int(given.seed or random.randrange(10**6)), float(given.seconds or DEFAULT_SECONDS)


if __name__ == "__main__":
    sys.exit(main(*_arguments()))
