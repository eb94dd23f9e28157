"""A crowd of lockersh on a few names, each with a witness under its lock, and the lock server that they ask.

Its places are hosts (network namespaces with a pid server each), or this host alone with a UNIX socket. As soon as one
lockersh has ended the next is started. chaos.py is what happens to them meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Callable, NamedTuple, NoReturn, TypeVar

import pytest

from ..support import PROJECT
from ..support.processes import children
from ..support.site import Node, new_nodes, new_site, nodes_can_be_made
from ..support.waiting import DEADLINE
from .witness import CLASH

T = TypeVar("T")
WITNESS = str(Path(__file__).with_name("witness.py"))
LEASE = 3.0  # seconds: the shortest
# How a lockersh may end: as its command, or because the lock was lost (76), or by a signal that it was sent.
_GOOD_ENDS = {0, 76, CLASH, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM}
_SHOWN = 60  # lines
# Odd places, as words before a command. The first looks like another host behind the same address, as a container with
# a boot id of its own, a NAT gateway or a tunnel does. In the second /proc shows numbers that are not its own.
_OTHER_BOOT = (
    "mount -t tmpfs tmpfs /run; cat /proc/sys/kernel/random/uuid >/run/boot; "
    'mount --bind /run/boot /proc/sys/kernel/random/boot_id; exec "$@"'
)
_ODD_PLACES = {
    "another boot": ["unshare", "--mount", "sh", "-euc", _OTHER_BOOT, "sh"],
    "no proc": ["unshare", "--pid", "--fork", "--kill-child"],
}
_FAULT = re.compile(r"Traceback|a fault of ours|could not be served")


class Stuck(AssertionError):
    """Something does not end, or can't be had."""


class Figures(NamedTuple):
    """What has happened. A violation is a command that found another one at work under its lock, or whose token was
    not above that of the one before."""

    grants: int
    kills: int
    stops: int
    cuts: int
    recalls: int
    lost: int
    violations: int
    terms: int = 0  # in which one of several lockerd has served
    longest_gap_ms: int = 0  # in which none did

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in self._asdict().items())


class Place:
    """Where tools run: a host of its own, or this one."""

    def __init__(self, folder: Path, environment: dict[str, str], node: Node | None = None) -> None:
        self.name = "here" if node is None else node.name
        self.node = node
        self.frozen = 0  # jobs of it that stand still with all that belongs to them
        self.is_cut = False
        self._environment = environment
        self.errors = folder / f"stderr.{self.name}"
        self._errors: IO[bytes] = self.errors.open("ab")

    def start(self, *words: str, log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """Start a command there."""
        return subprocess.Popen(
            words if self.node is None else self.node.words(*words),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log or self._errors,
            stderr=log or self._errors,
        )

    def pid(self, process: subprocess.Popen[bytes]) -> int:
        """Our number of a process that was started there; 0 if it is not there yet, or not any more."""
        if self.node is None:
            return process.pid if process.returncode is None else 0
        return next(iter(children(process.pid)), 0)

    def said(self) -> str:
        """The last that its tools have said on stderr, without repetitions."""
        lines = self.errors.read_text(errors="replace").splitlines()
        return f"at {self.name}:\n" + "\n".join(list(dict.fromkeys(reversed(lines)))[:_SHOWN][::-1])

    def close(self) -> None:
        self._errors.close()


class Worker(NamedTuple):
    """One lockersh, with its witness. A family is a witness with descendants.

    Nobody can know of the end of one that is in an odd place. So if it is not for a lease, nothing is done to it.
    """

    place: Place
    process: subprocess.Popen[bytes]
    mark: str  # among the words of all of its processes
    is_family: bool
    is_spared: bool = False

    @property
    def lockersh(self) -> int:
        """Its number here; 0 if it is not there."""
        return self.place.pid(self.process)

    @property
    def command(self) -> int:
        """The number here of its command, or of what will become that; 0 if it is not there."""
        parent = self.lockersh
        return [0, *children(parent)][-1] if parent else 0

    @property
    def runs(self) -> bool:
        """Whether its command has begun."""
        words = _words(self.command)
        return WITNESS in words and "lockersh" not in words

    @property
    def watchdog(self) -> int:
        """The number here of the process that ends the command if lockersh can't; 0 if it is not there."""
        lockersh = self.lockersh
        others = [pid for pid in self.job() if pid not in (lockersh, self.command) and "lockersh" in _words(pid)]
        return others[0] if others and lockersh else 0

    def job(self) -> list[int]:
        """The numbers here of all that belongs to it."""
        around = 0 if self.place.node is None else self.process.pid
        return [pid for pid in _numbers() if pid != around and self.mark in _words(pid)]


def _words(pid: int) -> list[str]:
    """The words of a process's command line; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


class Setting(NamedTuple):
    """What kind of crowd. `tool` and `server_tool` are the words of the program: one with a fault, perhaps."""

    tool: list[str]
    server_tool: list[str]
    names: int = 3
    workers: int = 8
    lease: bool = False
    families: float = 0.0  # the part of the witnesses that have descendants
    odd: float = 0.0  # the part of the lockersh that are in odd places
    long: float = 0.05  # the part of the commands that take long
    longest: float = 2.0  # seconds that such a one takes
    at_home: bool = True  # whether they are at the server's place, too
    patience: float = 60.0  # seconds for what has to end; only over when something is stuck


class Crowd:
    """The crowd, in `folder`."""

    def __init__(self, folder: Path, places: list[Place], where: list[str], setting: Setting, dice: random.Random):
        """`where` are the options that name the server, which is at the first place."""
        self.folder = folder
        self.places = places
        self.names = [f"name{number}" for number in range(setting.names)]
        self.workers: list[Worker] = []
        self.ends: Counter[int] = Counter()
        self._where = where
        self._setting = setting
        self._dice = dice
        self._numbers = itertools.count()
        self._mark = f"worker-{folder.name}-"
        self._helpers: list[subprocess.Popen[bytes]] = []
        self.server: subprocess.Popen[bytes] | None = None
        self._log = folder / "lockerd.log"

    # The server

    def start_server(self) -> None:
        """Start it, or start it again."""
        state = ["--state", str(self.folder / "state")]
        words = [*self._setting.server_tool, "lockerd", "--nofork", *state, *self._options()]
        with self._log.open("ab") as log:
            self.server = self.places[0].start(*words, log=log)

    def _options(self) -> list[str]:
        return self._where if self._where[0] == "--path" else ["--host", "0.0.0.0"]

    @property
    def server_pid(self) -> int:
        """Its number here; 0 if it is not there."""
        return 0 if self.server is None else self.places[0].pid(self.server)

    def kill_server(self) -> None:
        """End it at once."""
        assert self.server is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server_pid or self.server.pid, signal.SIGKILL)
            os.kill(self.server.pid, signal.SIGCONT)  # nsenter(1), which may have been stopped with it
        self.server.wait(DEADLINE)

    def locks(self) -> str | None:
        """What is held, as lockersh prints it; None without a server."""
        place = self.places[0]
        command = [*self._setting.tool, "lockersh", "--locklist", "--connect-tries", "1", *self._where]
        done = subprocess.run(
            command if place.node is None else place.node.words(*command),
            env=place._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        return done.stdout if done.returncode == 0 else None

    def tell(self, *words: str) -> None:
        """Start a tool at the server's place, whose end nobody waits for."""
        self._helpers.append(self.places[0].start(*self._setting.tool, *words, *self._where))

    # The workers

    def turn(self) -> None:
        """Bury those that have ended, and start others."""
        self._bury()
        while len(self.workers) < self._setting.workers:
            places = self.places if self._setting.at_home else self.places[1:]
            number = next(self._numbers)
            self.workers.append(self._start(number, places[number % len(places)], self._dice.choice(self.names)))

    def _bury(self) -> int:
        """Forget those that have ended; how many are left."""
        self._helpers = [helper for helper in self._helpers if helper.poll() is None]
        for worker in [worker for worker in self.workers if worker.process.poll() is not None]:
            self.workers.remove(worker)
            self.ends[worker.process.returncode] += 1
        return len(self.workers) + len(self._helpers)

    def _start(self, number: int, place: Place, name: str) -> Worker:
        setting, dice = self._setting, self._dice
        takes_long = dice.random() < setting.long
        seconds = dice.uniform(1.0, setting.longest) if takes_long else dice.uniform(0.0, 0.05)
        is_family = dice.random() < setting.families
        manners = [manner for manner, has in (("tree", is_family), ("stubborn", dice.random() < 0.5)) if has]
        mark = f"{self._mark}{number}"
        lease = ["--lease", str(LEASE)] if setting.lease else []
        is_odd = dice.random() < setting.odd
        # A lease is refused where the descendants of a command can't be seen.
        odd_place = ("another boot" if setting.lease else dice.choice([*_ODD_PLACES])) if is_odd else ""
        process = place.start(
            *_ODD_PLACES.get(odd_place, []), *setting.tool, "lockersh", *self._where, "--lock", name, *lease,
            "--connect-tries", "1000", "--connect-delay", "0.3", "--no-shell",
            sys.executable, "-IS", WITNESS, str(self.folder), f"{seconds:.3f}", mark, *manners,
        )  # fmt: skip
        return Worker(place, process, mark, is_family, is_odd and not setting.lease)

    def finish(self) -> None:
        """Let all end, and see that nothing is stuck: each name can be had from each place, and none is left held."""
        self._await("all to end", lambda: self._bury() == 0)
        words = [*self._setting.tool, "lockersh", *self._where, "--timeout", str(self._setting.patience)]
        tries = [
            (place, name, place.start(*words, "--connect-tries", "1000", "--lock", name, "true"))
            for place in self.places
            for name in self.names
        ]
        self._helpers += [process for _, _, process in tries]
        for place, name, process in tries:
            code = process.wait(self._setting.patience + DEADLINE)
            if code:
                raise Stuck(f"{name} can't be had at {place.name}: exit code {code}\n{place.said()}")
        self._await("the server to hold nothing", lambda: self.locks() == "")
        strange = {code: count for code, count in self.ends.items() if code not in _GOOD_ENDS}
        said = "\n".join(place.said() for place in self.places)
        assert not strange, f"exit codes: {strange}\n{said}"
        for file in [*self.folder.glob("lockerd*.log"), *(place.errors for place in self.places)]:
            found = _FAULT.search(file.read_text(errors="replace"))
            assert not found, found and found.string[found.start() :][:3000]

    def _await(self, description: str, what: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._setting.patience
        while not (answer := what()):
            if time.monotonic() >= deadline:
                left = [f"{worker.mark} at {worker.place.name}" for worker in self.workers]
                raise Stuck(f"waited in vain for {description}; left: {left}; held: {self.locks()!r}")
            time.sleep(0.02)
        return answer

    # What the witnesses saw

    def starts(self) -> int:
        """How many commands have begun."""
        return sum(line.startswith("start ") for log in self._logs() for line in log)

    def violations(self) -> list[str]:
        """Two at work under one lock, and tokens that do not grow, as lines of the witnesses' logs."""
        found = []
        for log in self._logs():
            last = -1
            for line in log:
                what, token = line.split()[:2]
                if what == "clash" or (what == "start" and int(token) <= last):
                    found.append(line)
                if what == "start":
                    last = max(last, int(token))
        return found

    def _logs(self) -> Iterator[list[str]]:
        for name in self.names:
            path = self.folder / f"{name}.log"
            if path.exists():
                yield path.read_text().splitlines()

    def end(self) -> None:
        """End all that was started."""
        processes = [(worker.place, worker.process) for worker in self.workers]
        processes += [(self.places[0], process) for process in [*self._helpers, self.server] if process is not None]
        for place, process in processes:
            for number in {place.pid(process), process.pid} - {0}:
                _kill(number)
            process.wait(DEADLINE)
        for pid in _numbers():
            if any(word.startswith(self._mark) for word in _words(pid)):
                _kill(pid)
        for place in self.places:
            place.close()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _numbers() -> list[int]:
    """The numbers of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def built(file: Path) -> list[str]:
    """The words of the built file."""
    return [str(file)]


def with_fault(name: str) -> list[str]:
    """The words of the program with a fault (planted.py)."""
    return [sys.executable, "-m", "tests.proof.planted", name, "ipclocker"]


def need_hosts() -> None:
    """Skip the test, with a word, where there can be no hosts of its own."""
    if not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        leave_out("takes ip, nsenter and unshare")
    if not nodes_can_be_made():
        leave_out("takes namespaces, so root")


def leave_out(why: str) -> NoReturn:
    """Skip a test on hosts of its own, with a word."""
    if os.environ.get("CI") == "true" and os.geteuid() == 0:  # there the proof is never left out
        pytest.fail(f"the proof on hosts that are cut off {why}")
    pytest.skip(f"THE PROOF ON HOSTS THAT ARE CUT OFF IS LEFT OUT: it {why}")


@contextlib.contextmanager
def new_crowd(setting: Setting, file: Path, cache: Path, dice: random.Random, hosts: int = 0) -> Iterator[Crowd]:
    """A crowd on that many hosts, or on this one. It ends with the block."""
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(new_site(file, cache))
        environment = {**site.environment, "PYTHONPATH": str(PROJECT)}
        environment.pop("IPCLOCKER_PORT")
        if hosts:
            nodes = stack.enter_context(new_nodes(site, *[f"proof{number}" for number in range(hosts)]))
            for node in nodes:
                node.serve()
            places = [Place(site.folder, environment, node) for node in nodes]
            where = ["--dhost", nodes[0].address]
        else:
            places, where = [Place(site.folder, environment)], ["--path", str(site.folder / "lockerd")]
        crowd = Crowd(site.folder, places, where, setting, dice)
        stack.callback(crowd.end)
        crowd.start_server()
        crowd._await("the server", lambda: crowd.locks() is not None)
        yield crowd
