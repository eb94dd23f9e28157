"""Costs of commands under a lock: the pause between two, beside flock(1)'s, and the memory of lockersh beside one."""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..support import PROJECT
from .size import sized

WAITING = sized(16, 2)
ROUNDS = sized(5, 1)
LOCKERSH = ["/usr/bin/python3", "-IS", str(PROJECT / "dist" / "ipclocker"), "lockersh", "--no-shell", "--lock", "x"]


@contextlib.contextmanager
def lockerd(path: Path) -> Iterator[None]:
    """A lock server on a UNIX socket."""
    with subprocess.Popen(
        [str(PROJECT / "dist" / "ipclocker"), "lockerd", "--nofork", "--path", str(path), "--state", "none"],
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            while not path.exists():
                time.sleep(0.01)
            yield
        finally:
            server.terminate()


def compile_stamp(compiler: str, stamp: Path) -> None:
    """Make the program that says when it ran."""
    subprocess.run([compiler, "-O", "-o", str(stamp), str(Path(__file__).with_name("stamp.c"))], check=True)


def pauses(command: list[str], stamp: Path, times: Path) -> list[float]:
    """Milliseconds from each end to the next start, of a crowd that wants to run the stamp under one lock."""
    times.write_text("")
    crowd = [subprocess.Popen([*command, str(stamp), str(times)]) for _ in range(WAITING + 1)]
    for process in crowd:
        process.wait()
    runs = sorted(tuple(map(float, line.split())) for line in times.read_text().splitlines())
    return [(after[0] - before[1]) * 1000 for before, after in zip(runs, runs[1:])]


def hand_over(folder: Path, compiler: str) -> None:
    """Print the pause between two commands."""
    stamp, times = folder / "stamp", folder / "times"
    compile_stamp(compiler, stamp)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        ours.append(statistics.median(pauses([*LOCKERSH, "--path", str(folder / "lockerd")], stamp, times)))
        theirs.append(statistics.median(pauses(["flock", str(folder / "flock")], stamp, times)))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    print(
        f"{'end of a command to the next start':<34} {statistics.median(ours):7.2f} ms  "
        f"flock(1) {statistics.median(theirs):.2f} ms  ratio {ratio:.2f}",
        flush=True,
    )


def memory(folder: Path) -> None:
    """Print the memory of a lockersh beside its command."""
    with subprocess.Popen([*LOCKERSH, "--path", str(folder / "lockerd"), "sleep", "2"]) as process:
        time.sleep(1)  # for it to have done all that it does at the start
        share = re.findall(r"^Pss: +(\d+)", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.MULTILINE)[0]
        print(f"{'lockersh beside its command':<34} {int(share) / 1024:7.1f} MB proportional set size", flush=True)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, lockerd(Path(name) / "lockerd"):
        compiler = shutil.which("cc")
        if compiler and shutil.which("flock"):
            hand_over(Path(name), compiler)
        else:
            print("end of a command to the next start: left out, it takes a C compiler and flock(1)")
        memory(Path(name))


if __name__ == "__main__":
    main()
