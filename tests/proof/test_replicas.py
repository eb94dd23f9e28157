"""Several lockerd on etcd, in short: what `make torture` does for long, and that it would find what it looks for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ..support.site import Node
from .chaos import torment
from .crowd import Setting, built
from .fail_overs import over_fail_overs
from .recorded import Clients
from .replicas import PORT, ReplicatedCrowd, Site, need_machines, new_replicated_crowd
from .storm import STORM, Storm


def test_a_storm(built_file: Path, cache: Path, dice: random.Random) -> None:
    need_machines()
    setting = Setting(built(built_file), [], lease=True, long=0.25, longest=3.0, at_home=False)
    with new_replicated_crowd(setting, Site(), built_file, cache, dice) as crowd:
        storm = Storm(crowd, dice, STORM, pause=1.0)
        print(torment(crowd, storm, 6.0, lambda so_far: so_far.grants > 5 and so_far.terms > 3))


def test_histories_over_fail_overs(built_file: Path, cache: Path, tmp_path: Path, dice: random.Random) -> None:
    need_machines()
    faults = ["kill the leader", "terminate the leader", "revoke the lease"]
    kind = Clients(processes=2, operations=40)
    told = over_fail_overs(built_file, cache, tmp_path, dice, faults, 3, kind=kind)
    assert told.checked.grants > 50
    print(told)


def test_a_host_is_switched_off_with_a_holder_the_leader_and_etcds(
    built_file: Path, cache: Path, dice: random.Random
) -> None:
    need_machines()
    with new_replicated_crowd(Setting(built(built_file), [], workers=0), SITE, built_file, cache, dice) as crowd:
        leader = crowd.leader()
        elsewhere = crowd.client_nodes[-1]
        lost = hold(crowd, leader.node, built_file, "x", 3)
        kept = hold(crowd, elsewhere, built_file, "y", 30)
        waiter = elsewhere.start(*lockersh(crowd, built_file, "x", 3), "echo", "$IPCLOCKER_TOKEN")
        waiter.says("waiting for lock x")
        lead_etcd(crowd, leader.place.name)
        leader.node.end()
        crowd.etcd.members[crowd.lockerd_nodes.index(leader.node)].kill()
        assert int(waiter.out()) > lost, "its lease is over, by its own clock and by the new leader's"
        assert crowd.leader() is not leader
        another = elsewhere.start(*lockersh(crowd, built_file, "y", 3, "--timeout", "0"), "true")
        assert another.end() == 75
        assert str(kept) in elsewhere.run(
            str(built_file), "lockstat", "list", "--dhost", crowd.hosts, "--port", str(PORT)
        )


SITE = Site(beside=True)


def lockersh(crowd: ReplicatedCrowd, file: Path, lock: str, lease: int, *words: str) -> list[str]:
    """A command under a lease, up to the command."""
    where = ["--dhost", crowd.hosts, "--port", str(PORT)]
    return [str(file), "lockersh", "--verbose", *where, "--lock", lock, "--lease", str(lease), *words]


def hold(crowd: ReplicatedCrowd, node: Node, file: Path, lock: str, lease: int) -> int:
    """Hold a lock there until the end; the token."""
    holder = node.start(*lockersh(crowd, file, lock, lease), "echo $IPCLOCKER_TOKEN; exec sleep 1000")
    assert holder.process.stdout is not None
    return int(holder.process.stdout.readline())


def lead_etcd(crowd: ReplicatedCrowd, name: str) -> None:
    """Let the member on that host lead etcd."""
    before = crowd.etcd_leader()
    assert before is not None
    number = [f"etcd{number}" for number in range(SITE.members)].index(name)
    if before is not crowd.etcd.members[number]:
        told = crowd.etcd.call("maintenance/status", {}, number)["header"]["member_id"]
        crowd.etcd.call("maintenance/transfer-leadership", {"targetID": told}, crowd.etcd.members.index(before))


# That these would find what they look for


@pytest.mark.parametrize(
    ("fault", "workers", "long"), [("grants_forgotten_by_etcd", 4, 0.5), ("tokens_forgotten_by_etcd", 1, 0.0)]
)
def test_two_at_once_are_found(
    built_file: Path, cache: Path, dice: random.Random, fault: str, workers: int, long: float
) -> None:
    """A token is forgotten only if nobody holds the lock while another one begins to lead.

    A lockerd that comes back may see that first: it has noted what it knew of etcd.
    """
    need_machines()
    setting = Setting(built(built_file), [], names=1, workers=workers, long=long, longest=3.0, at_home=False)
    with new_replicated_crowd(setting, Site(fault=fault), built_file, cache, dice) as crowd:
        leader = crowd.leader()
        for standby in crowd.replicas:
            if standby is not leader:
                standby.step_clock(-3600.0)
        storm = Storm(crowd, dice, ["terminate the leader"], pause=2.5)
        with pytest.raises(AssertionError, match=r"two at once, or a token that does not grow|ended by itself: 74"):
            torment(crowd, storm, 30.0)
