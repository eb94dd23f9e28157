"""What happens to a crowd: kills, stops, cuts and recalls, at times that the dice say.

No single fault may let two commands run under one lock, and many may come at once; but two things are not promised,
so they are not done:

- A job that stands still with all that belongs to it, on a host that is cut off. Nobody can end its command then, or
  say that it lives. (So it is with a suspended host.) If lockersh alone stands still, its watchdog ends the command;
  so only one of the two is harmed.
- That nobody comes while descendants of a command are left, if somebody kills the command, or its lockersh. So a
  family is left alone by SIGKILL.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Callable

from ..support.waiting import DEADLINE
from .crowd import Crowd, Figures, Place, Stuck, Worker

KILLS = ("kill a holder", "kill a waiter", "kill a command", "kill the server")
STOPS = ("stop a holder", "stop a waiter", "stop a command", "freeze a job", "stop the server")
WATCHDOGS = ("kill a watchdog", "stop a watchdog")  # with leases only
CUTS = ("cut", "unplug", "deafen", "mute")  # off; silently off; it hears no answers; it is not heard
RECALLS = ("recall",)  # with leases only
_SHORT_STOP, _LONG_STOP = 0.5, 5.0  # seconds; the latter outlasts a lease
_SHORT_CUT, _LONG_CUT = 0.5, 9.0  # the latter outlasts a lease and the questions after it

Undo = Callable[[], None]


class Chaos:
    """Does these faults, one every `pause` seconds or so, each for a while."""

    def __init__(self, crowd: Crowd, dice: random.Random, faults: Sequence[str], pause: float, long: float = 0.3):
        """`long` is the part of the stops and cuts that outlast a lease."""
        self.done: Counter[str] = Counter()
        self._crowd = crowd
        self._dice = dice
        self._faults = faults
        self._pause = pause
        self._long = long
        self._next = time.monotonic() + pause
        self._undo: list[tuple[float, int, Undo]] = []
        self._numbers = count()
        self._harmed: set[int] = set()  # workers that something was done to, by number

    def turn(self) -> None:
        """Do and undo what is due."""
        now = time.monotonic()
        while self._undo and self._undo[0][0] <= now:
            heapq.heappop(self._undo)[2]()
        if now >= self._next:
            self._next = now + self._dice.uniform(0.3, 1.7) * self._pause
            fault = self._dice.choice(self._faults)
            if self._do(fault):
                self.done[fault] += 1

    def calm(self) -> None:
        """Undo all."""
        while self._undo:
            heapq.heappop(self._undo)[2]()

    def figures(self) -> Figures:
        """What has happened so far."""
        crowd, done = self._crowd, self.done
        return Figures(
            grants=crowd.starts(),
            kills=sum(done[fault] for fault in done if fault.startswith("kill")),
            stops=sum(done[fault] for fault in done if fault.startswith(("stop", "freeze"))),
            cuts=sum(done[fault] for fault in CUTS),
            recalls=sum(done[fault] for fault in RECALLS),
            lost=crowd.ends[76],
            violations=len(crowd.violations()),
        )

    def _do(self, fault: str) -> bool:
        """Whether it could be done."""
        crowd = self._crowd
        if fault in CUTS:
            return self._cut(fault)
        if fault == "kill the server":
            return self._kill_server()
        if fault == "stop the server":
            return crowd.server is not None and self._stop([crowd.server_pid], crowd.server)
        if fault == "recall":
            crowd.tell("lockstat", "break", self._dice.choice(crowd.names))
            return True
        what, _, whom = fault.partition(" a ")
        runs = whom != "waiter"
        spared = set() if whom == "command" else self._harmed
        found = [
            worker
            for worker in crowd.workers
            if worker.runs == runs and worker.process.pid not in spared and not worker.is_spared
        ]
        return bool(found) and self._harm(self._dice.choice(found), what, whom)

    def _harm(self, worker: Worker, what: str, whom: str) -> bool:
        if what == "freeze":
            if worker.place.is_cut:
                return False
            pids = worker.job()
        else:
            pids = [{"command": worker.command, "watchdog": worker.watchdog}.get(whom, worker.lockersh)]
        if what == "kill":
            if worker.is_family and whom != "watchdog":
                return False
            harmed = _send(pids[0], signal.SIGKILL)
        else:
            harmed = self._stop(pids, worker.process, worker.place if what == "freeze" else None)
        if harmed and whom != "command":
            self._harmed.add(worker.process.pid)
        return harmed

    def _kill_server(self) -> bool:
        crowd = self._crowd
        if not crowd.server_pid:
            return False
        crowd.kill_server()
        self._later(self._dice.choice([0.0, 0.3, 1.0]), crowd.start_server)
        return True

    def _stop(self, pids: list[int], process: subprocess.Popen[bytes], frozen: Place | None = None) -> bool:
        """Let processes stand still for a while; `process` is the one that they belong to."""
        stopped = [pid for pid in pids if _send(pid, signal.SIGSTOP)]
        if not stopped:
            return False
        if frozen is not None:
            frozen.frozen += 1

        def go_on() -> None:
            if frozen is not None:
                frozen.frozen -= 1
            for pid in {*stopped, process.pid}:  # nsenter(1) stops with what it runs
                _send(pid, signal.SIGCONT)

        self._later(self._duration(_SHORT_STOP, _LONG_STOP), go_on)
        return True

    def _cut(self, kind: str) -> bool:
        """Cut off a host that a holder is on, if there is any; the server's own if it is that, which cuts off all."""
        holders = [worker.place for worker in self._crowd.workers if worker.runs]
        place = self._dice.choice(holders or self._crowd.places)
        home = self._crowd.places[0]
        concerned = self._crowd.places if place is home else [place]
        if place.node is None or home.node is None or any(place.is_cut or place.frozen for place in concerned):
            return False
        number = self._crowd.places.index(place)
        if kind == "cut" or (place is home and kind in ("deafen", "mute")):
            there, cut, join = place.node, "link set eth0 down", "link set eth0 up"
        elif kind == "unplug":
            there, cut, join = home.node, f"link set port{number} nomaster", f"link set port{number} master switch"
        elif kind == "deafen":
            there, route = home.node, f"blackhole {place.node.address}/32"
            cut, join = f"route add {route}", f"route del {route}"
        else:
            there, route = place.node, f"blackhole {home.node.address}/32"
            cut, join = f"route add {route}", f"route del {route}"

        def join_again() -> None:
            there.run("ip", *join.split())
            for place in concerned:
                place.is_cut = False

        there.run("ip", *cut.split())
        for place in concerned:
            place.is_cut = True
        self._later(self._duration(_SHORT_CUT, _LONG_CUT), join_again)
        return True

    def _duration(self, short: float, long: float) -> float:
        dice = self._dice
        return dice.uniform(0.8, 1.2) * long if dice.random() < self._long else dice.uniform(0.1, 1.0) * short

    def _later(self, seconds: float, call: Undo) -> None:
        heapq.heappush(self._undo, (time.monotonic() + seconds, next(self._numbers), call))


def _send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process, 0 for one that is not there; whether it was."""
    with contextlib.suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)
            return True
    return False


def torment(
    crowd: Crowd, chaos: Chaos, seconds: float, enough: Callable[[Figures], bool] = lambda figures: True
) -> Figures:
    """Let all that happen for so long and until it is enough, or until the first violation; then calm down.

    Raises AssertionError for a violation, and for what is stuck.
    """
    begin = time.monotonic()
    figures = chaos.figures()
    look_at = begin
    try:
        while time.monotonic() < begin + seconds or not enough(figures):
            crowd.turn()
            chaos.turn()
            if time.monotonic() >= look_at:
                figures = chaos.figures()
                _complain(crowd)
                look_at = time.monotonic() + 0.3
                if time.monotonic() > begin + seconds + DEADLINE:
                    raise Stuck(f"not enough has happened: {figures}")
            time.sleep(0.01)
    finally:
        chaos.calm()
    crowd.finish()
    _complain(crowd)
    return chaos.figures()


def _complain(crowd: Crowd) -> None:
    violations = crowd.violations()
    assert not violations, f"two at once, or a token that does not grow: {violations}"
