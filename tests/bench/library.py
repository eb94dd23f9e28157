"""Speed of a Locker beside other libraries' locks: redis-py's Lock on a redis-server, and filelock on a local file.

    python -m tests.bench.library

Threads of one process take and give back a lock as fast as they can: each one of its own name, or all the same name.
The peers take turns, so that a slow moment of the machine hits all. Neither lockerd nor redis-server writes to a disk
here. A peer that this machine lacks is left out, which a line says.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

from ipclocker import Locker

from .locks import lockerd
from .size import sized

ROUNDS = sized(7, 1)
SECONDS = sized(1.0, 0.1)  # a round of one library
THREADS = (1, 10, 50)
HOLD = 30  # seconds after which a lock is free again if its process has died
GOAL = 2.0  # times the speed of redis-py
FIRST_PORT = 26_379  # and those behind it, until one is free

MakeLock = Callable[[str], AbstractContextManager[Any]]


@contextlib.contextmanager
def ours() -> Iterator[MakeLock]:
    """Make Lockers of a lock server of their own."""
    with lockerd() as server:
        yield lambda name: Locker(lock=name, port=server.port, timeout=HOLD)


@contextlib.contextmanager
def redis_locks() -> Iterator[MakeLock]:
    """Make redis-py's Locks, over one client, as its manual has it. Raises LookupError if something is missing."""
    redis = _peer("redis")
    command = shutil.which("redis-server")
    if command is None:
        raise LookupError("redis-server")
    for port in range(FIRST_PORT, FIRST_PORT + 100):
        where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", tempfile.gettempdir()]
        with subprocess.Popen(
            [command, *where, "--save", "", "--appendonly", "no"], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                if any("Ready to accept connections" in line for line in process.stdout):
                    with redis.Redis(port=port) as client:
                        yield lambda name: client.lock(name, timeout=HOLD)
                    return
            finally:
                process.kill()
    raise LookupError("a free port")


@contextlib.contextmanager
def file_locks() -> Iterator[MakeLock]:
    """Make filelock's locks. Raises LookupError if it is missing."""
    filelock = _peer("filelock")
    with tempfile.TemporaryDirectory() as folder:
        yield lambda name: filelock.FileLock(Path(folder) / name)


def _peer(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise LookupError(f"the package {package}") from None


def run(make_lock: MakeLock, names: list[str], seconds: float) -> list[int]:
    """Let a thread for each name lock and unlock that for so long; how often each did."""
    turns = [0] * len(names)
    everybody = threading.Barrier(len(names) + 1)

    def work(number: int) -> None:
        lock = make_lock(names[number])
        with lock:  # so that all have connected
            pass
        everybody.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with lock:
                turns[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(names))]
    for thread in threads:
        thread.start()
    everybody.wait()
    for thread in threads:
        thread.join()
    return turns


def compare(libraries: dict[str, MakeLock], threads: int, same: bool) -> None:
    """Print the locks a second of each library, and how many times as fast the first one is."""
    names = ["same"] * threads if same else [f"own{number}" for number in range(threads)]
    turns: dict[str, list[list[int]]] = {library: [] for library in libraries}
    for _ in range(ROUNDS):
        for library, make_lock in libraries.items():
            turns[library].append(run(make_lock, names, SECONDS))
    rates = {library: [sum(each) / SECONDS for each in rounds] for library, rounds in turns.items()}
    us, *peers = libraries
    title = "1 thread" if threads == 1 else f"{threads} threads, {'one name' if same else 'names of their own'}"
    rate = f"{title:<34} {statistics.median(rates[us]):7.0f} a second"
    for peer in peers:
        ratios = sorted(a / b for a, b in zip(rates[us], rates[peer]))
        goal = f"  goal {GOAL:.1f}" if peer == "redis-py" else ""
        print(
            f"{rate}  {peer} {statistics.median(rates[peer]):.0f}  "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}){goal}",
            flush=True,
        )
    if not peers:
        print(rate, flush=True)
    if same and threads > 1:
        told = [f"{library} {_spread(rounds)}" for library, rounds in turns.items()]
        print(f"{'  turns of each thread':<34} {',  '.join(told)}", flush=True)


def _spread(rounds: list[list[int]]) -> str:
    """Say how many turns the thread with the fewest and the one with the most had, in the round in the middle."""
    middle = sorted(rounds, key=lambda turns: max(turns) - min(turns))[len(rounds) // 2]
    return f"{min(middle)} to {max(middle)}"


def main() -> None:
    """Measure and print."""
    with ExitStack() as stack:
        libraries = {}
        for library, locks in (("ipclocker", ours), ("redis-py", redis_locks), ("filelock", file_locks)):
            try:
                libraries[library] = stack.enter_context(locks())
            except LookupError as missing:
                print(f"locks beside {library}: left out, this machine lacks {missing.args[0]}", flush=True)
        for threads in THREADS:
            compare(libraries, threads, same=False)
            if threads > 1:
                compare(libraries, threads, same=True)


if __name__ == "__main__":
    main()
