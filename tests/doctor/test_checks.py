"""What doctor makes of the facts about a host: each thing that may be wrong, and what it says to do."""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import Any

import pytest

from ipclocker.doctor import checks as health
from ipclocker.doctor.checks import (
    CHECKS,
    FAILED,
    NOT_BEFORE,
    OK,
    WARNING,
    Finding,
    examine,
)
from ipclocker.doctor.listening_ports import ListeningPort
from ipclocker.doctor.probes import ThisHost
from ipclocker.lock.client.locker import PingStatus
from ipclocker.lock.snapshot import HostState

GOOD: PingStatus = {"ok": True, "status": "0.001 second response on h"}
BAD: PingStatus = {"ok": False, "status": "no server answers"}


class FakeHost(ThisHost):
    """A host with which all is well, but for what a test says: a value, or an error to be raised."""

    FACTS: dict[str, Any] = {  # noqa: RUF012
        "python": ((3, 9, 2), "/usr/bin/python3", True),
        "cache": ("/var/cache/ipclocker-0", ["/var/cache/ipclocker-0"]),
        "listeners": (1751, []),
        "lockerd": GOOD,
        "lock_hosts": [],
        "etcd": None,
        "pidstatd": GOOD,
        "host_name": "worker",
        "addresses": ["10.0.0.5"],
        "names": ["worker.example.org", "worker"],
        "is_own_address": True,
        "pidfd": "",
        "clocks": (2 * NOT_BEFORE, 5.0, 6.0),
        "synchronised": True,
        "namespace": "host",
        "descriptors": (1024, 524_288),
        "state_folder": ("/var/lib/ipclocker", "ext4", ""),
    }

    def __init__(self, hosts: tuple[str, ...] = ("lockhost",), named: bool = True, **facts: Any) -> None:
        self.hosts = list(hosts)
        self.named = named
        for name, fact in {**self.FACTS, **facts}.items():
            setattr(self, name, partial(_probe, fact))


def _probe(fact: Any, *words: str) -> Any:
    if isinstance(fact, Exception):
        raise fact
    return fact(*words) if callable(fact) else fact


def check(which: str, host: FakeHost) -> list[Finding]:
    return examine(host, {which: CHECKS[which]})


def test_a_host_with_which_all_is_well() -> None:
    findings = examine(FakeHost(), CHECKS)
    assert {finding.state for finding in findings} == {OK}
    assert not any(finding.advice for finding in findings)
    assert all(finding.found for finding in findings)


@pytest.mark.parametrize(
    ("which", "facts", "state", "said"),
    [
        ("python", {"python": ((3, 8, 9), "/usr/bin/python3", True)}, FAILED, "3.8.9.*IPCLOCKER_PYTHON"),
        ("python", {"python": ((3, 9, 2), "/usr/bin/python3", False)}, WARNING, "not isolated"),
        ("unpacking", {"cache": (None, ["/a", "/b"])}, WARNING, "none of /a, /b.*IPCLOCKER_CACHE"),
        (
            "port of lockerd",
            {"listeners": (1751, [ListeningPort("0.0.0.0", 7, "nginx")]), "lockerd": BAD},
            FAILED,
            r"process 7 \(nginx\).*--port",
        ),
        (
            "port of pidstatd",
            {"listeners": (1752, [ListeningPort("::")]), "pidstatd": BAD},
            FAILED,
            "can't be seen.*root.*services",
        ),
        ("lockerd", {"lockerd": BAD}, FAILED, "no server answers.*ipclocker lockerd.*firewall"),
        ("pidstatd", {"pidstatd": BAD}, FAILED, "ipclocker pidstatd"),
        ("host name", {"host_name": "localhost"}, FAILED, "no name of its own.*hostnamectl"),
        ("host name", {"addresses": OSError("Name or service not known")}, FAILED, "not known.*/etc/hosts"),
        ("host name", {"is_own_address": False}, FAILED, "10.0.0.5, which is no address of this host.*/etc/hosts"),
        ("host name", {"addresses": ["127.0.1.1"]}, WARNING, "leads other hosts to themselves.*instead of 127.0.1.1"),
        ("host name", {"addresses": ["::1"]}, WARNING, "leads other hosts to themselves"),
        (
            "host name",
            {"addresses": ["10.0.0.5", "10.0.0.6"], "is_own_address": "10.0.0.5".__eq__},
            WARNING,
            "of which 10.0.0.6 is not this host's.*led to another",
        ),
        (
            "own address",
            {"names": ["other.example.org"]},
            WARNING,
            "other.example.org, not as 'worker'.*10.0.0.5 worker",
        ),
        ("own address", {"names": []}, WARNING, "comes back as no name.*/etc/hosts"),
        ("pidfd", {"pidfd": "Function not implemented"}, WARNING, "Function not implemented.*5.3"),
        ("clock", {"clocks": (2 * NOT_BEFORE, 6.0, 5.0)}, FAILED, "do not go together"),
        ("clock", {"clocks": (NOT_BEFORE - 1, 5.0, 6.0)}, FAILED, "before this program was made.*set it"),
        ("clock", {"synchronised": False}, WARNING, "chrony"),
        ("pid namespace", {"namespace": "own"}, WARNING, "container.*--pid=host"),
        ("pid namespace", {"namespace": "unknown"}, WARNING, "/proc.*mount"),
        ("descriptors", {"descriptors": (64, 200)}, FAILED, "200.*LimitNOFILE"),
        ("descriptors", {"descriptors": (1024, 1024)}, WARNING, "1024.*limits.conf"),
        ("state folder", {"state_folder": ("/x", "ext4", "it may not be written")}, FAILED, "/x.*--state-dir"),
        ("state folder", {"state_folder": ("/x", "nfs4", "")}, WARNING, "nfs4.*--state-dir"),
        ("clock", {"clocks": OSError("no clock")}, FAILED, "could not be checked: no clock"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(which: str, facts: dict[str, Any], state: str, said: str) -> None:
    findings = check(which, FakeHost(**facts))
    worst = [finding for finding in findings if finding.state == state]
    assert state == max((finding.state for finding in findings), key=[OK, WARNING, FAILED].index)
    assert re.search(said, f"{worst[0].found} / {worst[0].advice}")
    assert all(finding.advice for finding in findings if finding.state != OK)


@pytest.mark.parametrize(
    ("which", "facts", "said"),
    [
        ("unpacking", {"cache": ("", ["/a"])}, "no built file"),
        ("port of lockerd", {"listeners": (1751, None)}, "can't be seen"),
        (
            "port of lockerd",
            {"listeners": (1751, [ListeningPort("127.0.0.1", 9, "ipclocker lockerd")])},
            "lockerd has it: .*9",
        ),
        ("host name", {"addresses": ["127.0.1.1", "10.0.0.5"]}, "10.0.0.5"),
        ("clock", {"synchronised": None}, "can't be asked"),
        ("descriptors", {"descriptors": (-1, -1)}, "no limit"),
    ],
)
def test_what_is_no_fault(which: str, facts: dict[str, Any], said: str) -> None:
    [finding] = check(which, FakeHost(**facts))
    assert finding.state == OK
    assert re.search(said, finding.found)


def test_a_server_on_a_unix_socket_has_no_port() -> None:
    assert check("port of lockerd", FakeHost(listeners=(0, None))) == []


def test_one_lock_server_that_answers_is_enough() -> None:
    states = {"a": BAD, "b": GOOD}
    found = check("lockerd", FakeHost(hosts=("a", "b"), lockerd=lambda host: states[host]))
    assert [(finding.name, finding.state) for finding in found] == [("lockerd of a", WARNING), ("lockerd of b", OK)]


def states(*found: tuple[str, str, bool]) -> list[HostState]:
    """Hosts a, b and so on, each by its state, its lock space, and whether that is replicated."""
    return [HostState(name, state, None, "", space, shared) for name, (state, space, shared) in zip("abc", found)]


def test_one_that_stands_by_is_as_it_should_be() -> None:
    answers = {"a": BAD, "b": GOOD}
    found = check(
        "lockerd",
        FakeHost(
            hosts=("a", "b"),
            lockerd=lambda host: answers[host],
            lock_hosts=states(("stands by", "f00", True), ("serves", "f00", True)),
        ),
    )
    assert [(finding.name, finding.state) for finding in found] == [
        ("lockerd of a", OK),
        ("lockerd of b", OK),
        ("lock space", OK),
    ]


def test_hosts_of_a_shared_lock_space_and_of_another_one_are_no_list() -> None:
    for other in (("serves", "f11", False), ("serves", "", False), ("serves", "f11", True)):
        hosts = states(("serves", "f00", True), other)
        [finding] = [one for one in check("lockerd", FakeHost(hosts=("a", "b"), lock_hosts=hosts)) if one.advice]
        assert (finding.name, finding.state) == ("lock space", FAILED)
        assert finding.found == "b does not serve the lock space of a (f00)"
    alone = states(("serves", "f00", False), ("serves", "f11", False))
    assert len(check("lockerd", FakeHost(hosts=("a", "b"), lock_hosts=alone))) == 2, "each is its own, as it was"


def test_the_pid_server_of_this_host_is_for_lock_servers_elsewhere() -> None:
    def mine(host: str) -> PingStatus:
        return BAD if host == "localhost" else GOOD

    found = check("pidstatd", FakeHost(pidstatd=mine))
    assert [finding.state for finding in found] == [OK, WARNING]
    [finding] = check("pidstatd", FakeHost(hosts=("localhost",), named=False, pidstatd=mine))
    assert finding.state == OK


def test_an_address_whose_name_nobody_knows_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if the name server is silent: only messages depend on it."""
    over = threading.Event()

    def hang(address: str) -> list[str]:
        over.wait(30)
        return []

    monkeypatch.setattr(health, "REVERSE_PATIENCE", 0.1)
    try:
        [finding] = check("own address", FakeHost(names=hang))
    finally:
        over.set()
    assert (finding.name, finding.state) == ("address 10.0.0.5", WARNING)
    assert check("own address", FakeHost(addresses=["127.0.1.1"])) == []
    assert check("own address", FakeHost(addresses=OSError("not known"))) == [], "the name's own check says so"


def test_nobody_waits_for_what_hangs() -> None:
    """A resolver that is silent holds up its own check only, and that not for long."""
    over = threading.Event()

    def hang(name: str) -> list[str]:
        over.wait(30)
        return []

    try:
        checks = {name: CHECKS[name] for name in ("host name", "pidfd")}
        found = examine(FakeHost(addresses=hang), checks, patience=0.5)
    finally:
        over.set()
    assert [finding.state for finding in found] == [FAILED, OK]
    assert "no answer" in found[0].found and "resolver" in found[0].advice
