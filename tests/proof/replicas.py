"""Several lockerd that share a lock space in a real etcd, each on a host of its own, and a crowd that asks them.

The hosts look like machines of their own: boot ids, machine ids and clocks differ. The switch of their network is on
one more host, the desk, from which all is looked at; nothing happens to that one.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, TypeVar

from ..support import PROJECT
from ..support.etcd import Etcd, Member, running_etcd
from ..support.networks import on_network_of
from ..support.site import Node, new_nodes, new_site, nodes_can_be_made
from ..support.waiting import DEADLINE, wait_for
from .crowd import Crowd, Place, Setting, Stuck, leave_out, need_hosts

T = TypeVar("T")
PORT = 1751
PREFIX = "proof/"
_BUSY = "serves the lock space in"  # in the log of each term
_LOOK_EVERY = 0.05  # seconds
_SILENT = 0.5  # seconds; who does not answer by then does not serve


class Site(NamedTuple):
    """How many hosts there are, and of which kinds; lockerd may be `beside` the etcd members.

    `ttl` as for lockerd, all of which have the `fault` (planted.py), if there is one.
    """

    lockerds: int = 2
    clients: int = 1
    members: int = 3
    beside: bool = False
    ttl: int = 2
    fault: str = ""


class Replica:
    """One lockerd, on a host of its own. Its realtime clock is off by as many seconds as the file `clock` says."""

    def __init__(self, place: Place, words: list[str], log: Path, clock: Path) -> None:
        assert place.node is not None
        self.place = place
        self.node: Node = place.node
        self.log = log
        self.clock = clock
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._said_before = 0  # bytes of the log

    @property
    def pid(self) -> int:
        """Its number here; 0 if it is not there."""
        return 0 if self._process is None else self.place.pid(self._process)

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def has_served(self) -> bool:
        """Whether it has begun a term since its start. Before that, it may not know yet what to do on a signal."""
        return self.pid != 0 and _BUSY.encode() in self.log.read_bytes()[self._said_before :]

    def start(self) -> None:
        """Start it; whether it serves is another question. Nothing if it runs."""
        if self._process is None:
            with self.log.open("ab") as log:
                self._said_before = log.tell()
                self._process = self.place.start(*self._words, log=log)

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; whether it was there."""
        with contextlib.suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)
                return True
        return False

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal, and wait until it is gone."""
        process = self._process
        if process is not None:
            wait_for(lambda: self.pid or process.poll() is not None, "nsenter(1) to have started it")
            self.send(number)
            self.go_on()
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                process.kill()
                process.wait()
                raise Stuck(f"lockerd at {self.place.name} does not end by {number.name}") from None
            finally:
                self._process = None

    def step_clock(self, seconds: float) -> None:
        """Let its realtime clock be off by so much from now on."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.clock)

    def check(self) -> None:
        """See that it has not ended by itself. Raises Stuck."""
        if self._process is not None and self._process.poll() is not None:
            raise Stuck(f"lockerd at {self.place.name} has ended by itself: {self._process.returncode}")

    def go_on(self) -> None:
        """Let it run again after a stop, and nsenter(1), which stops with it."""
        self.send(signal.SIGCONT)
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


class Watch:
    """Looks again and again, in a thread, whether one of these addresses serves, as seen on the network of `pid`."""

    def __init__(self, pid: int, addresses: Sequence[str]) -> None:
        self.gaps: list[tuple[float, float]] = []  # from when to when none did, monotonic
        self._served = time.monotonic()
        self._pid = pid
        self._addresses = addresses
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def longest(self) -> float:
        """The longest time without a server, in seconds."""
        gaps = [*self.gaps, (self._served, time.monotonic())]
        return max(end - begin for begin, end in gaps)

    def end(self) -> None:
        self._ended.set()
        self._thread.join(DEADLINE)

    def _run(self) -> None:
        first = 0
        with on_network_of(self._pid):
            while not self._ended.wait(_LOOK_EVERY):
                order = [*self._addresses[first:], *self._addresses[:first]]
                found = next((address for address in order if _serves(address)), None)
                if found is not None:
                    first = self._addresses.index(found)
                    now = time.monotonic()
                    if now - self._served > 4 * _LOOK_EVERY:
                        self.gaps.append((self._served, now))
                    self._served = now


def _serves(address: str) -> bool:
    """Whether a lock server there answers; who can't be reached is waited for in the shortest time only."""
    with contextlib.suppress(OSError), socket.create_connection((address, PORT), _SILENT) as sock:
        sock.sendall(b"VERSION\nEOF\n")
        return sock.recv(1000).startswith(b"version")
    return False


class ReplicatedCrowd(Crowd):
    """A crowd whose server is several lockerd."""

    def __init__(
        self,
        folder: Path,
        places: list[Place],
        setting: Setting,
        dice: random.Random,
        etcd: Etcd,
        replicas: list[Replica],
        member_nodes: list[Node],
    ) -> None:
        addresses = [replica.node.address for replica in replicas]
        super().__init__(folder, places, ["--dhost", ":".join(addresses), "--port", str(PORT)], setting, dice)
        self.etcd = etcd
        self.replicas = replicas
        self.hosts = ":".join(addresses)
        desk = places[0].node
        assert desk is not None
        self._addresses = addresses
        self._desk = desk
        self.member_nodes = member_nodes
        self.client_nodes = [place.node for place in places[1:] if place.node is not None]
        self.asking_nodes = [desk, *self.client_nodes]
        self.lockerd_nodes = [replica.node for replica in replicas]
        self.nodes = list(dict.fromkeys([desk, *member_nodes, *self.client_nodes]))
        self._last_leader = replicas[0]
        self.watch: Watch | None = None

    def start_server(self) -> None:
        """Start all of them, or those that do not run."""
        for replica in self.replicas:
            replica.start()

    def turn(self) -> None:
        """Bury those that have ended, and start others; the servers go on."""
        for replica in self.replicas:
            replica.check()
        super().turn()

    def await_server(self) -> None:
        """Wait until one serves, and look from then on whether one does."""
        with on_network_of(self._desk.pid):
            try:
                wait_for(lambda: any(map(_serves, self._addresses)), "a lockerd that serves")
            except AssertionError as problem:
                said = "\n".join(replica.log.read_text(errors="replace") for replica in self.replicas)
                raise Stuck(f"{problem}; they said:\n{said}") from None
        self.watch = Watch(self._desk.pid, self._addresses)

    def leader(self) -> Replica:
        """The one that leads, as far as etcd says; else the one that did."""
        entry = self.leader_entry()
        names = {replica.place.name: replica for replica in self.replicas}
        if entry is not None:
            self._last_leader = names[json.loads(base64.b64decode(entry["value"]))["host"]]
        return self._last_leader

    def leader_entry(self) -> dict[str, Any] | None:
        """The key `leader` as etcd has it; None if there is none, or no etcd."""
        found = self.ask_etcd(lambda number: self.etcd.entries(f"{PREFIX}leader", number))
        return found[0] if found else None

    def revoke(self) -> bool:
        """Revoke the leader's lease; whether there was one."""
        entry = self.leader_entry()
        if entry is None:
            return False
        lease = str(entry["lease"])

        def revoke(number: int) -> list[object]:
            self.etcd.revoke(lease, number)
            return []

        return self.ask_etcd(revoke) is not None

    def etcd_leader(self) -> Member | None:
        """The member that leads etcd itself; None if that can't be found out."""

        def who(number: int) -> list[Member]:
            told = self.etcd.call("maintenance/status", {}, number)
            is_leader = told.get("leader") == told["header"]["member_id"]
            return [self.etcd.members[number]] if is_leader else []

        for number in range(len(self.etcd.members)):
            for member in self._ask(number, who) or ():
                return member
        return None

    def ask_etcd(self, question: Callable[[int], list[T]]) -> list[T] | None:
        """What the first member says that is healthy; None if none is."""
        for number in range(len(self.etcd.members)):
            answer = self._ask(number, question)
            if answer is not None:
                return answer
        return None

    def _ask(self, number: int, question: Callable[[int], list[T]]) -> list[T] | None:
        if self.etcd.members[number].process is not None and self.etcd.is_healthy(number):
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                return question(number)
        return None

    def terms(self) -> int:
        """How often one of them began to serve."""
        return sum(replica.log.read_text(errors="replace").count(_BUSY) for replica in self.replicas)

    def finish(self) -> None:
        """Let all end, as for each crowd; then end the lockerd: etcd has nothing of them but what a next one needs."""
        super().finish()
        members = [f"{PREFIX}member/{replica.place.name}" for replica in self.replicas]
        names = ("counter", "format", "leader", "served", "space")
        needed = {*members, *(PREFIX + name for name in names)}

        def found() -> set[str]:
            return {key.partition(",")[0] for key in self.etcd.keys(PREFIX)}  # without a member's addresses

        wait_for(lambda: needed <= found(), "all that lockerd need in etcd")
        left = found() - needed
        assert not left, f"left in etcd: {left}"
        if self.watch is not None:
            self.watch.end()
        for replica in self.replicas:
            replica.end(signal.SIGTERM)
        left = set(self.etcd.keys(PREFIX)) - {PREFIX + name for name in names if name != "leader"}
        assert not left, f"left in etcd at the end: {left}"
        wait_for(lambda: not self.etcd.leases(), "the leases of those that were killed to end")

    def end(self) -> None:
        if self.watch is not None:
            self.watch.end()
        for replica in self.replicas:
            replica.end()
        super().end()


def machines_can_be_made() -> bool:
    """Whether this user can have such hosts here, and there is an etcd for them."""
    return shutil.which("etcd") is not None and nodes_can_be_made(machines=True)


def need_machines() -> None:
    """Skip the test, with a word, where there can be none."""
    need_hosts()
    if not machines_can_be_made():
        leave_out("takes etcd, and namespaces for time")


@contextlib.contextmanager
def new_replicated_crowd(
    setting: Setting, site: Site, file: Path, cache: Path, dice: random.Random
) -> Iterator[ReplicatedCrowd]:
    """A crowd that asks several lockerd on a new etcd. It ends with the block."""
    members = [f"etcd{number}" for number in range(site.members)]
    lockerds = [
        members[number] if site.beside and number < site.members else f"lockerd{number}"
        for number in range(site.lockerds)
    ]
    clients = [f"client{number}" for number in range(site.clients)]
    names = list(dict.fromkeys(["desk", *members, *lockerds, *clients]))
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(new_site(file, cache))
        environment = {**here.environment, "PYTHONPATH": str(PROJECT)}
        environment.pop("IPCLOCKER_PORT")
        environment.pop("STATE_DIRECTORY")
        nodes = {node.name: node for node in stack.enter_context(new_nodes(here, *names, machines=True))}
        desk = nodes["desk"]
        etcd = stack.enter_context(
            running_etcd(
                here.folder / "etcd",
                site.members,
                addresses=[nodes[name].address for name in members],
                before=[["nsenter", f"--target={nodes[name].pid}", "--net"] for name in members],
                inside=lambda: on_network_of(desk.pid),
            )
        )
        busy = [name for name in names if name in lockerds or name in clients]
        places = {name: Place(here.folder, environment, nodes[name]) for name in ["desk", *busy]}
        for name in busy:
            nodes[name].serve()
        options = ["--host", "0.0.0.0", "--etcd", ",".join(etcd.urls), "--etcd-prefix", PREFIX]
        options += ["--leader-ttl", str(site.ttl)]
        replicas = []
        for name in lockerds:
            clock = here.folder / f"clock.{name}"
            clock.write_text("0")
            tool = [sys.executable, "-m", "tests.proof.stepped", str(clock), site.fault, "ipclocker"]
            words = [*tool, "lockerd", "--nofork", "--state-dir", str(here.folder / f"state.{name}"), *options]
            replicas.append(Replica(places[name], words, here.folder / f"lockerd.{name}.log", clock))
        crowd = ReplicatedCrowd(
            here.folder, list(places.values()), setting, dice, etcd, replicas, [nodes[name] for name in members]
        )
        stack.callback(crowd.end)
        crowd.start_server()
        crowd.await_server()
        yield crowd
