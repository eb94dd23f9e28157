"""Candidates for the lead on an etcd in memory, and what they were told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ipclocker.lock.server.candidate import Candidate, Events, Identity

from .fake_etcd import FakeEtcd

TTL = 6  # seconds
LEADER = "ipc/leader"


class Host(Candidate):
    """One lockerd, and what it was told: (event, argument)."""

    def __init__(self, etcd: FakeEtcd, name: str = "host1", port: int = 9999) -> None:
        self.etcd = etcd
        self.told: list[tuple[str, object]] = []
        events = Events(*(partial(self._hear, name) for name in Events._fields))
        address = f"{name}:{port}"
        super().__init__(etcd.call, lambda: etcd.now, events, "ipc/", Identity(name, (address,), "1.0"), TTL)

    def _hear(self, event: str, what: object) -> None:
        self.told.append((event, what))

    def run(self, seconds: float, idle: float = 0) -> None:
        """Step whenever it wants to, for so long."""
        run([self], seconds, idle)

    def lead(self) -> int:
        """Become the leader; its term."""
        while not self.step(0):
            pass
        assert self.term is not None
        return self.term

    def heard(self) -> list[str]:
        return [event for event, _ in self.told]


def run(hosts: Sequence[Host], seconds: float, idle: float = 0) -> None:
    """Let several go on for so long, each as often as it wants to, in turn."""
    etcd = hosts[0].etcd
    end = etcd.now + seconds
    while etcd.now < end:
        pause = min(host.step(idle) for host in hosts)
        etcd.pass_time(max(min(pause, end - etcd.now), 0.001))


def is_led_by(etcd: FakeEtcd, host: Host) -> bool:
    """True if the host leads, etcd says so, and nothing of other attempts is left."""
    entry = etcd.keys.get(LEADER)
    bound = {kept.lease for kept in etcd.keys.values()}
    return entry is not None and host.term == entry.made and host.valid_until > etcd.now and set(etcd.leases) == bound
