"""FastCGI programs behind nginx: what is lost when workers are renewed under load, and requests a second beside others.

The others are spawn-fcgi with multiwatch, and FCGI::ProcManager. Each has the same program in as many workers, and is
asked in turns with ours, so that a slow moment of the machine hits both. The processor time of the workers is besides,
since it depends less on what else the machine does.

Where there are more workers than processors, those of FCGI::ProcManager, which were forked when they had their program
in memory, find more of it in the processor's cache than those that have executed it each for itself, under any manager.
Where there are not, what FCGI::ProcManager does in each request is more than that.

    python -m tests.bench.prefork
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from ..end_to_end.test_prefork import PROGRAMS, disturb, fastcgi_folder, lacks, prefork, running
from ..end_to_end.web import Load, missing, nginx
from ..support import PROJECT
from ..support.processes import children, cpu_time
from ..support.waiting import wait_for
from .size import sized

FILE = PROJECT / "dist" / "ipclocker"
REQUESTS, RENEWALS, STOPS = sized(20_000, 400), sized(10, 1), sized(100, 2)
ROUNDS, IN_A_ROUND, WARM_UP = sized(60, 2), sized(2_000, 100), sized(500, 20)
NEVER_ENDS = {"PHP_FCGI_MAX_REQUESTS": "1000000"}  # else multiwatch takes it for broken


def losses(program: str) -> None:
    """Print how many requests of many fail while workers are renewed and stopped."""
    with fastcgi_folder() as folder, nginx(folder) as web:
        command = prefork(FILE, folder, program, "--start-delay", "0.2")
        with running(command, folder) as manager:
            load = Load(web, slow_every=20)
            disturb(load, manager.pid, REQUESTS, RENEWALS, STOPS, PROGRAMS[program][1])
        title = f"{program}: {RENEWALS} HUPs, {STOPS} workers stopped"
        print(f"{title:<44} {len(load.failures)} of {load.done} requests failed", flush=True)


class Site:
    """A load on programs, and what it takes."""

    def __init__(self, web: Path, manager: int) -> None:
        self.load = Load(web)
        self.rates: list[float] = []
        self.cost = 0.0  # seconds of the workers' processor time
        self._manager = manager

    def measure(self) -> None:
        """One round."""
        begin, before = time.monotonic(), self._cpu()
        for _ in self.load.run(IN_A_ROUND):
            pass
        self.rates.append(IN_A_ROUND / (time.monotonic() - begin))
        self.cost += self._cpu() - before

    def _cpu(self) -> float:
        return sum(map(cpu_time, children(self._manager)))


@contextlib.contextmanager
def site(command: list[str], folder: Path, workers: int) -> Iterator[Site]:
    """Programs, as many workers of them, that are started by this command.

    They are killed in the end: FCGI::ProcManager may take a minute to stop, its time for a worker that missed a TERM.
    """
    with nginx(folder) as web, running(command, folder, ends_well=False, **NEVER_ENDS) as manager:
        wait_for(lambda: len(children(manager.pid)) == workers, "the workers")
        found = Site(web, manager.pid)
        for _ in found.load.run(WARM_UP):
            pass
        yield found


def compare(program: str, name: str, theirs: list[str], workers: int) -> None:
    """Print the rates of ours and theirs, where SOCKET is the programs' socket and WORKERS how many there shall be."""
    with fastcgi_folder() as here, fastcgi_folder() as there:
        command = [word.replace("SOCKET", str(there / "fcgi")).replace("WORKERS", str(workers)) for word in theirs]
        own = prefork(FILE, here, program, workers=workers)
        with site(own, here, workers) as ours, site(command, there, workers) as other:
            for number in range(ROUNDS):
                for measured in (ours, other) if number % 2 else (other, ours):
                    measured.measure()
    assert not ours.load.failures and not other.load.failures
    ratio = statistics.median(a / b for a, b in zip(ours.rates, other.rates))
    mine, peer = (statistics.median(each.rates) for each in (ours, other))
    title = f"{program} under prefork, {workers} workers"
    print(f"{title:<44} {mine:7.0f} requests/s  {name} {peer:.0f}  ratio {ratio:.2f}")
    mine, peer = (each.cost / (ROUNDS * IN_A_ROUND) * 1e6 for each in (ours, other))
    print(
        f"{'  processor time for a request':<44} {mine:7.1f} us  {name} {peer:.1f}  ratio {mine / peer:.2f}", flush=True
    )


def main() -> None:
    """Measure and print."""
    for program in PROGRAMS:
        if lacks(program):
            print(f"{program} under prefork: left out, it takes {', '.join(lacks(program))}")
        else:
            losses(program)
    spawn = ["spawn-fcgi", "-n", "-s", "SOCKET", "-M", "0666", "--"]
    multiwatch = [*spawn, str(shutil.which("multiwatch")), "-f", "WORKERS"]
    processors = os.cpu_count() or 1
    if not lacks("php") and not missing("spawn-fcgi", "multiwatch"):
        compare("php", "spawn-fcgi + multiwatch", [*multiwatch, "--", str(shutil.which("php-cgi"))], processors)
    if not lacks("perl") and not missing("spawn-fcgi"):
        words = [str(shutil.which("perl")), *PROGRAMS["perl"][0][1:]]
        if not missing("multiwatch"):
            compare("perl", "spawn-fcgi + multiwatch", [*multiwatch, "-s", "USR1", "--", *words], processors)
        for workers in (processors, 2 * processors):
            compare("perl", "FCGI::ProcManager", [*spawn, "/usr/bin/env", "N_PROCESSES=WORKERS", *words], workers)


if __name__ == "__main__":
    main()
