"""Whether a busy lock is held by a run that this process is part of: what the environment and the server say of it."""

from __future__ import annotations

import os
import socket
from typing import Any, Callable

import pytest

from ipclocker.errors import LockBusy
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connection import wait_ready
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.wire.replies import LookFor, Space
from ipclocker.net.address import Address, own_host_name
from ipclocker.process.identity import identify
from ipclocker.process.viewpoint import HOST_PIDNS, own_view
from ipclocker.run.outer_runs import OuterGrant, OuterRuns

from ..support.fake_servers import NOTHING, FakeTcpServer, ScriptedServer, close_at_once
from ..support.processes import alive
from ..support.waiting import wait_for

HOST = own_host_name().encode()
CURRENT, STALE = b"current 1\n\n\n", b"current 0\n\n\n"


@pytest.fixture(autouse=True)
def no_outer_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPCLOCKER_LOCK", "IPCLOCKER_TOKEN", "IPCLOCKER_SPACE"):
        monkeypatch.delenv(name, raising=False)


class Listener:
    def waiting(self, name: str, holder: str) -> None: ...

    def obtained(self) -> None: ...

    def retry(self, reason: str, pause: float) -> None: ...


def outer_runs(
    server: FakeTcpServer,
    names: str = "x",
    told: tuple[LookFor, ...] = (),
    space: Space | None = None,
    **parameters: Any,
) -> OuterRuns:
    """For a request that has found its first lock busy, of whose holder the server has told this."""
    acquisition = LockAcquisition(LockSettings(lock=names.split(), **parameters), Listener())
    acquisition.asked_at = Address(socket.AF_INET, ("127.0.0.1", server.port))
    acquisition.asked_space = space
    acquisition.busy = names.split()[0].encode()
    acquisition.holder_processes = {each.name: each for each in told}
    return OuterRuns(acquisition, wait_ready)


def environment(patch: pytest.MonkeyPatch, locks: str, tokens: str, space: str = "") -> None:
    for name, value in (("LOCK", locks), ("TOKEN", tokens), ("SPACE", space)):
        patch.setenv(f"IPCLOCKER_{name}", value)


def held(pid: int, /, name: bytes = b"x", **other: bytes | int | None) -> bytes:
    """The answer about a lock that is recorded under this process, but for what is other."""
    me = identify(pid)
    words = {"host": HOST, "pid": pid, "start": me.start, "boot": me.boot.encode(), "pidns": me.pidns, **other}
    pairs = [b"%b %b" % (key.encode(), str(value).encode() if isinstance(value, int) else value)
             for key, value in words.items() if value is not None]  # fmt: skip
    return b"held %b user u token 5 age 1 %b\n" % (name, b" ".join(pairs)) + NOTHING


# What the environment says


def test_a_grant_of_the_environment_that_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer({b"CHECK x 5": CURRENT}) as server:
        for space in ("", f"127.0.0.1:{server.port}"):
            environment(monkeypatch, "w x", "4 5", space)
            outer = outer_runs(server)
            assert outer.to_run_under() == [OuterGrant(b"x", 5)]
            with pytest.raises(LockBusy, match=r"lock x is held by the run that this one is part of.* --nested "):
                outer.refuse()


@pytest.mark.parametrize("told", ["5a", "127.0.0.1:%d", ""], ids=["identity", "address", "nothing"])
def test_the_environment_names_the_space_by_its_identity_or_as_an_older_lockersh_does(
    monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    with ScriptedServer({b"CHECK x 5": CURRENT}) as server:
        environment(monkeypatch, "x", "5", told.replace("%d", str(server.port)))
        outer = outer_runs(server, space=Space(b"5a"))
        assert outer.to_run_under() == [OuterGrant(b"x", 5)] and outer.space == "5a"
        assert outer_runs(server, space=Space(b"07")).to_run_under() == ([] if told == "5a" else [OuterGrant(b"x", 5)])


def test_the_next_server_of_the_space_is_asked_when_one_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "x", "5")
    shared = b"space 5a replicated 5\n"
    with FakeTcpServer(close_at_once) as gone:
        pass
    with ScriptedServer({b"space": b"space 07\n", b"CHECK x 5": STALE}) as other:
        with ScriptedServer({b"space": shared, b"CHECK x 5": STALE}) as server:
            hosts = [f"[127.0.0.1]:{number}" for number in (gone.port, other.port, server.port)]
            outer = outer_runs(gone, space=Space(b"5a", 5), host=hosts)
            wait_for(lambda: not outer.still_hold([OuterGrant(b"x", 5)]), "the answer of the one that serves")
        assert b"CHECK x 5" not in other.asked


def test_a_grant_that_does_not_stand_any_more_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "x", "5")
    with ScriptedServer({b"CHECK x 5": STALE}) as server:
        outer = outer_runs(server)
        assert outer.to_run_under() == []
        outer.refuse()


def test_nothing_is_asked_where_the_answer_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer({b"CHECK": CURRENT, b"LOCK_INFO x": held(os.getppid())}) as server, alive() as stranger:
        outer_runs(server).refuse()
        environment(monkeypatch, "y", "5")
        outer_runs(server).refuse()
        environment(monkeypatch, "x", "5", f"127.0.0.2:{server.port}")
        outer_runs(server, told=(LookFor(b"x", HOST, stranger.pid),)).refuse()
        outer_runs(server, told=(LookFor(b"x", b"elsewhere", os.getppid()),)).refuse()
        assert server.asked == [] and server.connections == 0


def test_a_server_that_is_gone_or_knows_no_tokens_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "x", "5")
    told = (LookFor(b"x", HOST, os.getppid()),)
    with ScriptedServer({}) as classic:
        outer_runs(classic).refuse()
    outer_runs(classic, told=told).refuse()
    with FakeTcpServer(close_at_once) as server:
        outer = outer_runs(server, told=told)
        outer.refuse()
        assert outer.still_hold([OuterGrant(b"x", 5)]), "as far as is known"


# Under whom the lock is recorded


@pytest.mark.parametrize("above", [os.getpid, os.getppid, lambda: 1], ids=["itself", "parent", "first"])
def test_a_lock_that_is_recorded_above(above: Callable[[], int]) -> None:
    pid = above()
    with ScriptedServer({b"LOCK_INFO x": held(pid)}) as server:
        outer = outer_runs(server, told=(LookFor(b"x", HOST, pid),))
        [grant] = outer.to_run_under()
        assert grant.token == 5 and grant.process is not None and grant.process.pid == pid
        with pytest.raises(LockBusy, match="--nested"):
            outer.refuse()


def test_another_process_with_the_number_of_one_above_is_none() -> None:
    """On a host, or in a container, of the same name; or since that number was used again."""
    pid = os.getppid()
    me = identify(pid)
    assert me.start is not None and me.pidns is not None
    others: list[dict[str, Any]] = [
        {"start": me.start + 1},
        {"boot": b"another"},
        {"pidns": me.pidns + 1},
        {"host": b"elsewhere"},
        {"pid": 2**31 - 1},
        {"pid": None},
    ]
    for other in others:
        with ScriptedServer({b"LOCK_INFO x": held(pid, **other)}) as server:
            outer_runs(server, told=(LookFor(b"x", HOST, pid),)).refuse()
            assert b"LOCK_INFO x" in server.asked, other


def stand(monkeypatch: pytest.MonkeyPatch, contained: bool) -> None:
    """Stand in a pid namespace that is not the host's, or in the host's."""
    view = own_view()._replace(pidns=5 if contained else HOST_PIDNS)
    monkeypatch.setattr("ipclocker.run.outer_runs.own_view", lambda: view)


@pytest.mark.parametrize("contained", [True, False])
def test_of_a_classic_client_only_a_host_itself_believes_the_number(
    monkeypatch: pytest.MonkeyPatch, contained: bool
) -> None:
    stand(monkeypatch, contained)
    pid = os.getppid()
    with ScriptedServer({b"LOCK_INFO x": held(pid, start=None, boot=None, pidns=None)}) as server:
        found = outer_runs(server, told=(LookFor(b"x", HOST, pid),)).to_run_under()
        assert [grant.name for grant in found] == ([] if contained else [b"x"])


@pytest.mark.parametrize("contained", [True, False])
def test_a_classic_server_tells_of_the_process_when_the_lock_is_busy(
    monkeypatch: pytest.MonkeyPatch, contained: bool
) -> None:
    stand(monkeypatch, contained)
    with ScriptedServer({}) as classic:
        outer = outer_runs(classic, told=(LookFor(b"x", HOST, os.getppid()),))
        found = outer.to_run_under()
        assert [(grant.name, grant.token) for grant in found] == ([] if contained else [(b"x", None)])
        assert outer.still_hold(found)


# Several locks


def test_of_the_first_free_of_several_all_have_to_be_held_by_outer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "y x", "4 5")
    with ScriptedServer({b"CHECK": CURRENT}) as server:
        outer_runs(server, "x z").refuse()
        with pytest.raises(LockBusy, match="lock x, y is held"):
            outer_runs(server, "x y").refuse()
        assert outer_runs(server, "z x y").to_run_under() == [OuterGrant(b"x", 5)], "one is enough to run under"


def test_of_locks_that_are_wanted_together_the_one_that_is_waited_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "x y", "5 4")
    with ScriptedServer({b"CHECK": CURRENT, b"LOCK_INFO": NOTHING}) as server:
        outer_runs(server, "z x", all=True).refuse()
        with pytest.raises(LockBusy, match="lock x is held"):
            outer_runs(server, "x z", all=True).refuse()
        with pytest.raises(LockBusy, match=r"lock x is held .* and lock z is not: ask for the latter alone"):
            outer_runs(server, "x z", all=True).to_run_under()
        assert outer_runs(server, "z x", all=True).to_run_under() == [], "it waits for z"
        assert outer_runs(server, "x y", all=True).to_run_under() == [OuterGrant(b"x", 5), OuterGrant(b"y", 4)]


def test_of_locks_that_are_wanted_together_all_may_be_recorded_above() -> None:
    pid = os.getppid()
    answers = {b"LOCK_INFO x": held(pid), b"LOCK_INFO y": held(pid, b"y")}
    with ScriptedServer(answers) as server:
        found = outer_runs(server, "x y", told=(LookFor(b"x", HOST, pid),), all=True).to_run_under()
    assert [(grant.name, grant.token) for grant in found] == [(b"x", 5), (b"y", 5)]
