"""Costs of keeping programs alive: one that can't live, many that can, and the time until one is up again.

A shell loop (`while :; do COMMAND; done`) stands beside it as the least that can be, and supervisord if there is one.

    python -m tests.bench.supervise
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..support.processes import children, cpu_time
from .locks import FILE, PYTHON
from .size import sized

NOTING = 'echo $$ >> "$NOTES/{name}"; exec sleep 100000'
FAILING_SECONDS = sized(30.0, 0.3)
IDLE_SECONDS = sized(5.0, 0.3)
PROGRAMS = sized(200, 4)
KILL_SECONDS = sized(30.0, 0.5)
SAMPLES = sized(30, 2)


class AnySupervisor:
    """A supervisor of any make; each program notes the processes that it has had."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    def cpu(self, ended: bool = False) -> float:
        """Seconds of processor time of its own processes, if `ended` with that of the programs that have ended."""
        return sum(cpu_time(pid, ended) for pid in self._own())

    def memory(self) -> int:
        """Bytes in memory that are its own."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self._own()]
        return sum(int(re.findall(r"Private_Dirty: +(\d+)", text)[0]) for text in texts) * 1024

    def latest(self, name: str, count: int = 1) -> int:
        """Wait until a program was started so often; its process."""
        path = self.folder / name
        while not path.exists() or len(path.read_text().split()) < count:
            time.sleep(0.0005)
        return int(path.read_text().split()[count - 1])

    def _own(self) -> list[int]:
        """The processes that keep programs alive, not the programs, which have a session each."""
        below = children(self.process.pid)
        return [self.process.pid, *(pid for pid in below if os.getsid(pid) != pid)]


@contextlib.contextmanager
def keepalive(*command: str) -> Iterator[AnySupervisor]:
    """Start one, in a folder of its own; {} in its command is that folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word.replace("{}", folder) for word in command]
        environment = {**os.environ, "NOTES": folder}
        process = subprocess.Popen(words, env=environment, stdout=-3, stderr=-3, start_new_session=True)
        try:
            yield AnySupervisor(Path(folder), process)
        finally:
            process.terminate()
            process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a shell leaves


def supervise(*programs: str, longest_pause: str = "30") -> contextlib.AbstractContextManager[AnySupervisor]:
    """Ours, from the built file."""
    words = [word for program in programs for word in ("--program", program)]
    pauses = ["--first-pause", min("0.1", longest_pause), "--longest-pause", longest_pause]
    return keepalive(PYTHON, "-IS", FILE, "supervise", "--nofork", "--pid-file", "{}/pid", *pauses, *words)


def supervisord(folder: str, name: str, command: str) -> contextlib.AbstractContextManager[AnySupervisor]:
    """The peer, with a file that makes it restart at once whatever happens."""
    path = Path(folder) / "supervisord.conf"
    path.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/supervisord.pid\n"
        f"[program:{name}]\ncommand=/bin/sh -c '{command}'\nautorestart=true\nstartsecs=0\n"
    )
    return keepalive(shutil.which("supervisord") or "", "-c", str(path))


def failing() -> None:
    """Print what a program costs that ends at once, from its first start on."""
    for title, program in (("a program that always fails", "bad: exit 1"), ("one that is not there", "/nonexistent/x")):
        with supervise(program) as ours:
            time.sleep(1.0)
            begin, before = time.monotonic(), ours.cpu(ended=True)
            time.sleep(FAILING_SECONDS)
            used = (ours.cpu(ended=True) - before) / (time.monotonic() - begin)
            print(f"{title:<34} {100 * used:7.3f} % of a core, with what it uses itself", flush=True)


def idle() -> None:
    """Print what many programs cost that just run."""
    with supervise(*(f"p{number}: {NOTING.format(name=number)}" for number in range(PROGRAMS))) as ours:
        begin = time.monotonic()
        for number in range(PROGRAMS):
            ours.latest(str(number))
        started = time.monotonic() - begin
        time.sleep(1.5)
        before = ours.cpu()
        time.sleep(IDLE_SECONDS)
        used = 100 * (ours.cpu() - before) / IDLE_SECONDS
        title = f"{PROGRAMS} programs that run"
        print(
            f"{title:<34} {used:7.3f} % of a core, {ours.memory() / 1e6:.1f} MB, all up after {started:.2f} s",
            flush=True,
        )


def up_again() -> None:
    """Print how long it takes from a kill to the next start, where no pause is wanted between the two."""
    command = NOTING.format(name="web")
    with contextlib.ExitStack() as stack:
        peers = {"supervise": stack.enter_context(supervise(f"web: {command}", longest_pause="0.001"))}
        peers["a shell loop"] = stack.enter_context(
            keepalive("/bin/sh", "-c", f"while :; do /bin/sh -c '{command}'; done")
        )
        if shutil.which("supervisord"):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            peers["supervisord"] = stack.enter_context(supervisord(folder, "web", command))
        taken: dict[str, list[float]] = {name: [] for name in peers}
        for count in range(1, SAMPLES + 1):
            for name, peer in peers.items():
                pid = peer.latest("web", count)
                time.sleep(0.02)
                begin = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                peer.latest("web", count + 1)
                taken[name].append(time.perf_counter() - begin)
        shown = "  ".join(f"{name} {1000 * statistics.median(times):.1f} ms" for name, times in taken.items())
        print(f"{'killed, and up again':<34} {shown}", flush=True)


def kills() -> None:
    """Print what becomes of many programs of which some are killed all the time."""
    chance = random.Random(7)
    with supervise(*(f"p{number}: {NOTING.format(name=number)}" for number in range(PROGRAMS))) as ours:
        for number in range(PROGRAMS):
            ours.latest(str(number))
        before, killed, end = ours.cpu(), 0, time.monotonic() + KILL_SECONDS
        while time.monotonic() < end:
            path = ours.folder / str(chance.randrange(PROGRAMS))
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text().split()[-1]), signal.SIGKILL)
                killed += 1
            time.sleep(0.02)
        used, last = ours.cpu() - before, time.monotonic()
        while len(up := _up(ours)) < PROGRAMS and time.monotonic() - last < 60.0:
            time.sleep(0.1)
        title = f"{PROGRAMS} programs, killed at random"
        print(
            f"{title:<34} {killed} kills in {KILL_SECONDS:.0f} s, {len(up)} up {time.monotonic() - last:.1f} s later, "
            f"{1000 * used / killed:.2f} ms of processor time for each",
            flush=True,
        )


def _up(ours: AnySupervisor) -> list[str]:
    words = [PYTHON, "-IS", FILE, "supervise", "status", "--json", "--pid-file", f"{ours.folder}/pid"]
    answer = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return [program["name"] for program in answer["programs"] if program["state"] == "RUNNING"]


def main() -> None:
    """Measure and print."""
    failing()
    idle()
    up_again()
    kills()


if __name__ == "__main__":
    main()
