"""Several processes that stand for election on a real etcd: killed, stopped, cut off, and never two at once."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ipclocker.lock.server.election import now
from ipclocker.lock.storage.etcd_client import EtcdSettings

from ...support import PROJECT
from ...support.etcd import Etcd, running_etcd
from ...support.processes import state
from ...support.waiting import DEADLINE, wait_for

TTL = 2  # seconds
LEADER = "ipc/leader"


class Said(NamedTuple):
    """One line that a process said."""

    at: float
    event: str
    what: Any


class Lockerd:
    """A process of `electing`."""

    def __init__(self, name: str, settings: EtcdSettings) -> None:
        self.name = name
        self.said: list[Said] = []
        command = [sys.executable, "-m", "tests.lock.server.electing", name, str(TTL), json.dumps(settings._asdict())]
        self.process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(Said(**json.loads(line)))

    def heard(self) -> list[str]:
        return [said.event for said in self.said if said.event != "claims"]

    def await_event(self, event: str, count: int = 1) -> Said:
        """The event that comes for the count-th time."""
        wait_for(lambda: self.heard().count(event) >= count, f"{self.name} to be {event}: {self.heard()}")
        return [said for said in self.said if said.event == event][count - 1]

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self.process.stdin.close()
        self.process.stdout.close()


class Site:
    """An etcd, and processes that stand for election on it; in the end their claims are looked at."""

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd
        self.settings = EtcdSettings(tuple(etcd.urls))
        self.all: list[Lockerd] = []
        self.etcd_ends_leases_early = False

    def start(self, name: str) -> Lockerd:
        self.all.append(Lockerd(name, self.settings))
        return self.all[-1]

    def start_in_order(self, *names: str) -> list[Lockerd]:
        """Start them; the first one leads, the others know."""
        started = [self.start(names[0])]
        started[0].await_event("elected")
        for name in names[1:]:
            started.append(self.start(name))
        for other in started[1:]:
            assert f"host='{names[0]}'" in other.await_event("standing_by").what
        return started

    def await_leader(self, *of: Lockerd) -> Lockerd:
        """The one of these whose term etcd has, and who claims that."""

        def find() -> Lockerd | None:
            for entry in self.etcd.entries(LEADER):
                for lockerd in of:
                    last = lockerd.said[-1] if lockerd.said else None
                    if last is not None and last.event == "claims" and str(last.what) == entry["create_revision"]:
                        return lockerd
            return None

        return wait_for(find, f"a leader: {[(lockerd.name, lockerd.heard()) for lockerd in of]}")  # type: ignore[return-value]

    def check(self) -> None:
        """Nobody claims a term of another, or one that it has lost, or one when a younger one was claimed already.

        The last holds as long as etcd keeps leases to their end: clocks alone prove no more.
        """
        owners: dict[int, Lockerd] = {}
        for lockerd in self.all:
            term = lost = 0
            for said in lockerd.said:
                if said.event == "elected":
                    term = said.what
                elif said.event == "lost":
                    lost = term
                elif said.event == "claims":
                    assert owners.setdefault(said.what, lockerd) is lockerd and said.what == term > lost, f"{said}"
        assert owners
        claims = sorted(said for lockerd in self.all for said in lockerd.said if said.event == "claims")
        for one, next_one in zip(claims, claims[1:]):
            assert one.what <= next_one.what or self.etcd_ends_leases_early, f"{one}, then {next_one}"


@contextlib.contextmanager
def site_on(etcd: Etcd) -> Iterator[Site]:
    site = Site(etcd)
    try:
        yield site
    finally:
        for lockerd in site.all:
            lockerd.end()
    site.check()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """On one member."""
    with running_etcd(tmp_path / "etcd") as etcd, site_on(etcd) as site:
        yield site


@pytest.fixture
def big_site(tmp_path: Path) -> Iterator[Site]:
    """On three members."""
    with running_etcd(tmp_path / "etcd", 3) as etcd, site_on(etcd) as site:
        yield site


def test_of_three_that_start_at_once_one_leads(site: Site) -> None:
    three = [site.start(f"host{number}") for number in range(3)]
    leader = site.await_leader(*three)
    for other in three:
        if other is not leader:
            assert f"host='{leader.name}'" in other.await_event("standing_by").what
    wait_for(lambda: len(site.etcd.keys("ipc/member/")) == 3, "all to say where they are")
    assert json.loads(site.etcd.keys()["ipc/member/host1,host1:9999"])["addresses"] == ["host1:9999"]


def test_another_one_leads_when_the_leader_was_killed(site: Site) -> None:
    one, two, three = site.start_in_order("one", "two", "three")
    one.send(signal.SIGKILL)
    assert site.await_leader(two, three).name in ("two", "three")
    wait_for(lambda: len(site.etcd.keys("ipc/member/")) == 2, "the dead one's key to go")


def test_each_of_a_row_that_is_killed_is_followed_by_one_that_comes_back(big_site: Site) -> None:
    lockerds = big_site.start_in_order("one", "two")
    for _ in range(2):
        leader = big_site.await_leader(*lockerds)
        lockerds.remove(leader)
        leader.send(signal.SIGKILL)
        lockerds.append(big_site.start(leader.name))
    big_site.await_leader(*lockerds)


def test_a_leader_that_stood_still_has_lost_when_it_goes_on(site: Site) -> None:
    one, two = site.start_in_order("one", "two")
    one.send(signal.SIGSTOP)
    wait_for(lambda: state(one.process.pid) == "T", "it to stand still")
    two.await_event("elected")
    one.send(signal.SIGCONT)
    one.await_event("lost")
    one.await_event("standing_by")
    assert site.await_leader(one, two) is two


def test_a_leader_whose_loop_hangs_loses_its_term(site: Site, tmp_path: Path) -> None:
    one, two = site.start_in_order("one", "two")
    one.tell(f"hang {tmp_path / 'go on'}")
    two.await_event("elected")
    (tmp_path / "go on").touch()
    one.await_event("lost")
    assert site.await_leader(one, two) is two


def test_a_leader_that_resigns_leaves_nothing_and_is_followed(site: Site) -> None:
    one, two = site.start_in_order("one", "two")
    wait_for(lambda: len(site.etcd.keys("ipc/member/")) == 2, "both to say where they are")
    one.tell("resign")
    assert one.await_event("resigned").what is True
    assert set(site.etcd.keys("ipc/member/")) == {"ipc/member/two,two:9999"}
    two.await_event("elected")
    assert one.process.wait(DEADLINE) == 0
    two.tell("resign")
    two.await_event("resigned")
    assert site.etcd.keys() == {} and site.etcd.leases() == []


def test_a_standby_that_ends_leaves_nothing(site: Site) -> None:
    one, two = site.start_in_order("one", "two")
    two.tell("resign")
    two.await_event("resigned")
    wait_for(lambda: set(site.etcd.keys()) == {LEADER, "ipc/member/one,one:9999"}, "it to be gone")
    assert one.heard() == ["elected"] and site.await_leader(one) is one


def test_one_that_steps_down_stands_by(site: Site) -> None:
    one, two = site.start_in_order("one", "two")
    one.tell("step_down")
    assert one.await_event("lost").what == "told to"
    leader = site.await_leader(one, two)
    assert leader.heard()[-1] == "elected"


def test_a_lease_that_was_revoked_behind_the_leaders_back_is_a_loss(site: Site) -> None:
    one, two = site.start_in_order("one", "two")
    site.etcd_ends_leases_early = True
    (entry,) = site.etcd.entries(LEADER)
    site.etcd.revoke(entry["lease"])
    assert "ended its lease" in one.await_event("lost").what
    site.await_leader(one, two)


def test_a_leader_whose_key_somebody_deleted_does_not_touch_the_next_ones(site: Site) -> None:
    """The lease lives on, so only a transaction finds out, and then its owner is told to step down."""
    one, two = site.start_in_order("one", "two")
    site.etcd_ends_leases_early = True
    site.etcd.delete(LEADER)
    two.await_event("elected")
    one.tell("step_down")
    one.await_event("lost")
    one.await_event("standing_by")
    assert site.await_leader(two) is two


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_etcd_that_was_started_again_is_found_again(site: Site, number: int) -> None:
    one, two = site.start_in_order("one", "two")
    for _ in range(2):
        site.etcd.members[0].kill(number)
        two.await_event("waiting")
        site.etcd.members[0].start()
        site.etcd.wait_until_healthy()
        site.await_leader(one, two)


def test_an_etcd_that_is_away_for_long_costs_the_term(site: Site) -> None:
    one, two = site.start_in_order("one", "two")
    (member,) = site.etcd.members
    member.kill()
    gone = now()
    one.await_event("lost")
    one.await_event("waiting")
    assert max(said.at for said in one.said if said.event == "claims") < gone + TTL
    member.start()
    site.etcd.wait_until_healthy()
    site.await_leader(one, two)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_without_a_quorum_nobody_leads_and_with_it_one_does(big_site: Site, how: str) -> None:
    one, two = big_site.start_in_order("one", "two")
    followers = [member for member in big_site.etcd.members if member is not big_site.etcd.leader()]
    for member in followers:
        getattr(member, how)()
    one.await_event("lost")  # soon: etcd's leader renews leases until it knows that it is alone
    two.await_event("waiting")
    for member in followers:
        member.start() if how == "kill" else member.go_on()
    big_site.etcd.wait_until_healthy()
    big_site.await_leader(one, two)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_etcds_own_leader_may_go(big_site: Site, how: str) -> None:
    one, two = big_site.start_in_order("one", "two")
    leader = big_site.etcd.leader()
    getattr(leader, how)()
    remaining = [number for number, member in enumerate(big_site.etcd.members) if member is not leader]
    wait_for(lambda: big_site.etcd.is_healthy(remaining[0]), "the others to have a leader")
    big_site.etcd.members.remove(leader)
    try:
        big_site.await_leader(one, two)
    finally:
        big_site.etcd.members.append(leader)


def test_with_certificates_and_users_and_tokens_that_end(tmp_path: Path) -> None:
    options = ("--auth-token-ttl", "1")
    with running_etcd(tmp_path / "etcd", 1, *options, tls=True, client_certificates=True) as etcd:
        etcd.require_users(lockerd=("secret", "ipc/"))
        (tmp_path / "password").write_text("secret\n")
        assert etcd.certificates is not None
        folder = etcd.certificates.folder
        with site_on(etcd) as site:
            site.settings = EtcdSettings(
                tuple(etcd.urls),
                cacert=str(folder / "ca.crt"),
                cert=str(folder / "client.crt"),
                key=str(folder / "client.key"),
                user="lockerd",
                password_file=str(tmp_path / "password"),
            )
            one, two = site.start_in_order("one", "two")
            one.send(signal.SIGSTOP)
            two.await_event("elected")  # so that the first one's token has ended
            one.send(signal.SIGCONT)
            one.await_event("standing_by")
            two.tell("resign")
            one.await_event("elected", 2)
            (tmp_path / "password").write_text("wrong\n")
            three = site.start("three")
            assert "does not let the user 'lockerd' in" in three.await_event("failed").what
            one.tell("resign")
            one.await_event("resigned")
