"""What happens to several lockerd on etcd, and to etcd itself, beside what happens to a crowd (chaos.py).

One thing more is not promised: that a job which stands still with all that belongs to it keeps its lease while no
leader can reach its host. So no leader is cut off from clients meanwhile.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from typing import Callable

from ..support.etcd import Member
from ..support.site import Node
from .chaos import CUTS, Chaos, Undo
from .crowd import Figures
from .replicas import Replica, ReplicatedCrowd

LEADER_ENDS = ("kill the leader", "terminate the leader", "hand over")
LEADER_STOPS = ("stop the leader",)
LEADER_CUTS = ("cut the leader from etcd", "cut the leader from clients", "cut the leader off")
MEMBERS = ("kill a member", "stop a member", "cut a member off", "cut a member from lockerd")
OTHERS = ("kill a standby", "revoke the lease", "step a clock", "kill the leader and etcd's", "switch all off")
HOSTS = ("cut a host off",)  # of clients; with leases or without
STORM = (*LEADER_ENDS, *LEADER_STOPS, *LEADER_CUTS, *MEMBERS, *OTHERS)

Pair = tuple[Node, Node]


class Cuts:
    """Which hosts do not hear which others."""

    def __init__(self) -> None:
        self._cut: Counter[Pair] = Counter()

    def cut(self, pairs: Iterable[Pair]) -> Undo:
        """Let nothing come any more from the first of each pair to the second; what makes that undone."""
        concerned = list(pairs)
        self._set([pair for pair in concerned if not self._cut[pair]], deaf=True)
        self._cut.update(concerned)

        def join() -> None:
            self._cut.subtract(concerned)
            self._set([pair for pair in concerned if not self._cut[pair]], deaf=False)

        return join

    def _set(self, pairs: Sequence[Pair], deaf: bool) -> None:
        for target in dict.fromkeys(target for _, target in pairs):
            target.hear(*(source.address for source, to in pairs if to is target), deaf=deaf)


class Storm(Chaos):
    """Does these faults to a crowd and to its servers; `ttl` is that of the leader."""

    def __init__(
        self,
        crowd: ReplicatedCrowd,
        dice: random.Random,
        faults: Sequence[str],
        pause: float,
        long: float = 0.3,
        ttl: float = 2.0,
    ) -> None:
        super().__init__(crowd, dice, faults, pause, long)
        self._replicated = crowd
        self._ttl = ttl
        self._cuts = Cuts()
        self._deeds: dict[str, Callable[[], bool]] = {
            "kill the leader": lambda: self._end(crowd.leader(), signal.SIGKILL),
            "terminate the leader": lambda: self._end(crowd.leader(), signal.SIGTERM),
            "hand over": lambda: self._hand_over(crowd.leader()),
            "kill a standby": lambda: self._end(self._standby(), signal.SIGKILL),
            "stop the leader": lambda: self._stop_replica(crowd.leader()),
            "kill a member": lambda: self._kill_member(dice.choice(crowd.etcd.members)),
            "stop a member": lambda: self._stop_member(dice.choice(crowd.etcd.members)),
            "revoke the lease": crowd.revoke,
            "step a clock": self._step_clock,
            "kill the leader and etcd's": self._kill_both,
            "switch all off": self._switch_off,
            "cut the leader from etcd": lambda: self._cut_off([crowd.leader().node], crowd.member_nodes),
            "cut the leader from clients": lambda: self._cut_from_clients(crowd.leader().node, crowd.asking_nodes),
            "cut the leader off": lambda: self._cut_from_clients(crowd.leader().node, crowd.nodes),
            "cut a host off": lambda: self._cut_from_clients(dice.choice(crowd.client_nodes), crowd.nodes),
            "cut a member off": lambda: self._cut_off([dice.choice(crowd.member_nodes)], crowd.nodes),
            "cut a member from lockerd": lambda: self._cut_off([dice.choice(crowd.member_nodes)], crowd.lockerd_nodes),
        }

    def figures(self) -> Figures:
        crowd = self._replicated
        gap = 0.0 if crowd.watch is None else crowd.watch.longest()
        cuts = sum(done for fault, done in self.done.items() if fault.startswith("cut "))
        return super().figures()._replace(cuts=cuts, terms=crowd.terms(), longest_gap_ms=round(1000 * gap))

    def calm(self) -> None:
        super().calm()
        self._start_all()

    def _do(self, fault: str) -> bool:
        assert fault not in CUTS, "these are for a crowd with one server"
        deed = self._deeds.get(fault)
        return super()._do(fault) if deed is None else deed()

    def _standby(self) -> Replica:
        leader = self._replicated.leader()
        return self._dice.choice([replica for replica in self._replicated.replicas if replica is not leader])

    def _end(self, replica: Replica, number: signal.Signals) -> bool:
        if not replica.runs:
            return False
        replica.end(number)
        self._later(self._dice.choice([0.0, 0.5, 1.5 * self._ttl]), replica.start)
        return True

    def _hand_over(self, replica: Replica) -> bool:
        return replica.has_served and replica.send(signal.SIGHUP)

    def _stop_replica(self, replica: Replica) -> bool:
        if not replica.send(signal.SIGSTOP):
            return False
        self._later(self._time(), replica.go_on)
        return True

    def _kill_member(self, member: Member) -> bool:
        if member.process is None:
            return False
        member.kill()
        self._later(self._time(), partial(_start, member))
        return True

    def _stop_member(self, member: Member) -> bool:
        if member.process is None:
            return False
        member.stop()
        self._later(self._time(), partial(_go_on, member))
        return True

    def _kill_both(self) -> bool:
        """As if they had been on one host."""
        leader = self._replicated.etcd_leader()
        return leader is not None and self._end(self._replicated.leader(), signal.SIGKILL) and self._kill_member(leader)

    def _switch_off(self) -> bool:
        """Kill all lockerd and all of etcd at once, and start them in whatever order."""
        for replica in self._replicated.replicas:
            replica.end()
        self._replicated.etcd.kill()
        for replica in self._replicated.replicas:
            self._later(self._dice.uniform(0.0, 2.0), replica.start)
        for member in self._replicated.etcd.members:
            self._later(self._dice.uniform(0.0, 2.0), partial(_start, member))
        return True

    def _start_all(self) -> None:
        for member in self._replicated.etcd.members:
            _start(member)
        self._replicated.start_server()

    def _step_clock(self) -> bool:
        """Step the realtime clock of a lockerd's host, for as long as it lasts."""
        self._dice.choice(self._replicated.replicas).step_clock(self._dice.choice([-3600.0, -5.0, 0.0, 5.0, 86400.0]))
        return True

    def _cut_from_clients(self, node: Node, others: Iterable[Node]) -> bool:
        places = self._replicated.places
        if any(place.is_cut or place.frozen for place in places):
            return False
        for place in places:
            place.is_cut = True

        def join() -> None:
            for place in places:
                place.is_cut = False

        return self._cut_off([node], others, join)

    def _cut_off(self, nodes: Iterable[Node], others: Iterable[Node], joined: Undo = lambda: None) -> bool:
        """Cut hosts off from others: both ways, or so that they do not hear, or are not heard."""
        pairs = [(node, other) for node, other in product(nodes, others) if node is not other]
        back = [(other, node) for node, other in pairs]
        join = self._cuts.cut(self._dice.choice([pairs, back, pairs + back]))

        def undo() -> None:
            join()
            joined()

        self._later(self._time(), undo)
        return True

    def _time(self) -> float:
        """For how long it lasts: it is over before others lead, or not."""
        return self._duration(0.5 * self._ttl, 2 * self._ttl + 1.0)


def _start(member: Member) -> None:
    if member.process is None:
        member.start()


def _go_on(member: Member) -> None:
    if member.process is not None:
        member.go_on()
