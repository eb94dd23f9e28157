"""Start-up of the built file in milliseconds, as whole processes and warm, beside the bare interpreter.

The runs of all commands alternate, so that a slow moment of the machine hits all alike. Run it with

    python -m tests.bench.startup
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ipclocker.cli import TOOLS

from ..support import PROJECT
from .size import sized

PYTHON = "/usr/bin/python3"  # by its full path: version managers put scripts of their own before it
ROUNDS = sized(40, 1)

Command = tuple[list[str], Callable[[], None]]  # and what is done before each run, outside the measured time


def nothing() -> None:
    """Do nothing, which is what most commands need before a run."""


@contextmanager
def commands(folder: Path) -> Iterator[dict[str, Command]]:
    """The commands to be measured, by name."""
    file = str(shutil.copy(PROJECT / "dist" / "ipclocker", folder))
    cache = folder / "cache"
    cache.mkdir()
    environment, os.environ["IPCLOCKER_CACHE"] = dict(os.environ), str(cache)
    empty = folder / "empty.zip"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("__main__.py", "")
    isolated = [PYTHON, "-IS"]
    listed: dict[str, Command] = {
        "python3 -IS -c pass": ([*isolated, "-c", "pass"], nothing),
        "an empty zip archive": ([*isolated, str(empty)], nothing),
        "ipclocker --version": ([*isolated, file, "--version"], nothing),
    }
    for tool in TOOLS:
        listed[f"{tool} --version"] = ([*isolated, file, tool, "--version"], nothing)
    listed["ipclocker --version, first run"] = (
        [*isolated, file, "--version"],
        lambda: shutil.rmtree(cache / f"ipclocker-{os.geteuid()}", ignore_errors=True),
    )
    with server(file, folder / "lockerd") as address:
        lockersh = [*isolated, file, "lockersh", "--path", address, "--lock", "x", "/bin/true"]
        listed["lockersh ... /bin/true"] = (lockersh, nothing)
        try:
            yield listed
        finally:  # the next benchmark has a cache of its own
            os.environ.clear()
            os.environ.update(environment)


@contextmanager
def server(file: str, address: Path) -> Iterator[str]:
    """A lock server on a UNIX socket; the name of that."""
    process = subprocess.Popen(
        [file, "lockerd", "--nofork", "--path", str(address), "--state", "none"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("startup: lockerd does not start")
            time.sleep(0.01)
        yield str(address)
    finally:
        process.terminate()
        process.wait()


def once(command: list[str]) -> float:
    """Milliseconds from start to end of a process."""
    begin = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)])
    _, status = os.waitpid(child, 0)
    taken = time.perf_counter() - begin
    if status:
        raise SystemExit(f"startup: {' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return 1000 * taken


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, commands(Path(name)) as listed:
        taken: dict[str, list[float]] = {title: [] for title in listed}
        for title in list(listed) * (ROUNDS + 1):
            command, before = listed[title]
            before()
            taken[title].append(once(command))
    bare = statistics.median(taken["python3 -IS -c pass"][1:])
    print(f"{'start-up, whole processes':32} {'median':>9} {'least':>9} {'x bare':>8}")
    for title, times in taken.items():
        median = statistics.median(times[1:])  # the first round only warms
        print(f"{title:32} {median:6.1f} ms {min(times[1:]):6.1f} ms {median / bare:8.2f}")


if __name__ == "__main__":
    main()
