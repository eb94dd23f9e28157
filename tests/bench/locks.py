"""Costs of the lock server, beside the least that a Python server can cost, and the speed of a Locker.

The servers that are compared take turns, so that a slow moment of the machine hits both.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ipclocker import Locker

from ..support import PROJECT
from ..support.processes import cpu_time
from . import load
from .size import sized

PYTHON = "/usr/bin/python3"
FILE = str(PROJECT / "dist" / "ipclocker")
CLIENTS = 32
CLIENTS_ON_DISK = 64
ROUNDS = sized(5, 1)
SECONDS = sized(1.0, 0.1)  # a round
HELD = sized(100_000, 1_000)
WAITING = sized(10_000, 300)
GRANTS = 200  # as many of the waiting ones get the lock
LOCKINGS = sized(10_000, 100)


class Server:
    """A server under load, and what it has used."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._pid = process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self._pid, number)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return cpu_time(self._pid)

    def memory(self) -> int:
        """Bytes in memory that are its own."""
        return int(re.findall(r"Private_Dirty: +(\d+)", Path(f"/proc/{self._pid}/smaps_rollup").read_text())[0]) * 1024


@contextlib.contextmanager
def server(*command: str) -> Iterator[Server]:
    """Start a server that says on which port it is."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT) as process:
        try:
            assert process.stdout is not None
            found = None
            while found is None:
                line = process.stdout.readline()
                assert line, "the server has ended"
                found = re.search(r"on 127\.0\.0\.1:(\d+)", line)
            yield Server(process, int(found[1]))
        finally:
            process.kill()


def lockerd(state: str = "none") -> contextlib.AbstractContextManager[Server]:
    """The server that is measured, from the built file."""
    where = ["--host", "127.0.0.1", "--port", "0", "--state", state]
    return server(PYTHON, "-IS", FILE, "lockerd", "--nofork", *where)


def bare(kind: str) -> contextlib.AbstractContextManager[Server]:
    """The server that does next to nothing."""
    return server(PYTHON, "-m", "tests.bench.bare_server", kind, "0")


def compare(title: str, kind: str, load_with: type[load.OneShot] | type[load.Kept], held: int = 0) -> None:
    """Print the processor time for a request: of lockerd, of the bare loop, and their ratio."""
    other = lockerd() if held else bare(kind)
    with lockerd() as ours, other as theirs:
        if held:
            load.hold(ours.port, held)
        loads = [load_with(ours.port, CLIENTS), load_with(theirs.port, CLIENTS)]
        taken: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for which, measured in enumerate((ours, theirs)):
                before = measured.cpu()
                done = loads[which].run(SECONDS)
                taken[which].append((measured.cpu() - before) / done * 1e6)
    mine, peer = (statistics.median(each) for each in taken)
    ratio = statistics.median(a / b for a, b in zip(*taken))
    against = "with none held" if held else "bare loop"
    print(f"{title:<34} {mine:7.1f} us  {against} {peer:6.1f} us  ratio {ratio:.2f}", flush=True)


def memory() -> None:
    """Print what a held lock takes."""
    with lockerd() as ours:
        before = ours.memory()
        load.hold(ours.port, HELD)
        print(f"{'memory of a held lock':<34} {(ours.memory() - before) / HELD:7.0f} bytes", flush=True)


def grants() -> None:
    """Print how long a grant takes from the release, when a great many wait."""
    with lockerd() as ours:
        holder = load.queue(ours.port, 1, b"q")[0]
        waiting = load.queue(ours.port, WAITING, b"q")
        taken = []
        for number in range(GRANTS):
            begin = time.perf_counter()
            holder.sendall(b"UNLOCK\n")
            waiting[number].recv(4096)
            taken.append((time.perf_counter() - begin) * 1000)
            holder = waiting[number]
        print(
            f"{f'release to grant, {WAITING:,} waiting':<34} {statistics.median(taken):7.2f} ms  "
            f"99 % within {sorted(taken)[int(len(taken) * 0.99)]:.2f} ms",
            flush=True,
        )


def on_disk(folder: Path) -> None:
    """Print what it costs that locks are kept: processor time of many clients, and the time of one alone."""
    with lockerd(str(folder / "many.db")) as disk, lockerd() as memory_only:
        loads = [load.Kept(disk.port, CLIENTS_ON_DISK), load.Kept(memory_only.port, CLIENTS_ON_DISK)]
        taken: list[list[float]] = [[], []]
        rates = []
        for _ in range(ROUNDS):
            for which, measured in enumerate((disk, memory_only)):
                before = measured.cpu()
                done = loads[which].run(SECONDS)
                taken[which].append((measured.cpu() - before) / done * 1e6)
                if measured is disk:
                    rates.append(done / SECONDS)
    mine, peer = (statistics.median(each) for each in taken)
    ratio = statistics.median(a / b for a, b in zip(*taken))
    print(
        f"{'kept on disk, 64 clients':<34} {mine:7.1f} us  in memory {peer:6.1f} us  ratio {ratio:.2f}  "
        f"{statistics.median(rates):.0f} a second",
        flush=True,
    )
    times: dict[str, list[float]] = {"disk": [], "memory": [], "bare": []}
    with lockerd(str(folder / "one.db")) as disk, lockerd() as memory_only:
        for _ in range(ROUNDS):
            times["disk"].append(SECONDS / load.Kept(disk.port, 1).run(SECONDS) * 1e6)
            times["memory"].append(SECONDS / load.Kept(memory_only.port, 1).run(SECONDS) * 1e6)
            times["bare"].append(_write_and_flush(folder / "bare"))
    alone, in_memory, flush = (statistics.median(each) for each in times.values())
    print(
        f"{'kept on disk, one client alone':<34} {alone:7.1f} us  in memory {in_memory:.1f} us, write and fdatasync "
        f"{flush:.1f} us, together {in_memory + flush:.1f}: ratio {alone / (in_memory + flush):.2f}",
        flush=True,
    )


def _write_and_flush(path: Path, times: int = sized(1000, 10)) -> float:
    """Microseconds that it takes to append a page to a file and flush it."""
    with path.open("wb", buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(times):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
        return (time.perf_counter() - begin) / times * 1e6


def locker() -> None:
    """Print how often a second a Locker locks or unlocks."""
    with lockerd() as ours:
        lock = Locker(port=ours.port)
        begin = time.perf_counter()
        for _ in range(LOCKINGS):
            lock.lock()
            lock.unlock()
        print(
            f"{'Locker in a loop':<34} {2 * LOCKINGS / (time.perf_counter() - begin):7.0f} operations a second",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    # Load and server share one processor: so there is always something waiting for the server, as on a busy host.
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    compare("a request on its own connection", "one-shot", load.OneShot)
    compare("a request on a kept connection", "kept", load.Kept)
    compare(f"one of its own, {HELD:,} locks held", "one-shot", load.OneShot, HELD)
    memory()
    if hard >= WAITING + 100:
        grants()
    else:
        print(f"release to grant: left out, it takes {WAITING + 100} descriptors and {hard} are allowed")
    locker()
    os.sched_setaffinity(0, everywhere)
    with tempfile.TemporaryDirectory(dir=PROJECT / "dist") as folder:  # not in /tmp, which may be in memory
        on_disk(Path(folder))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    main()
