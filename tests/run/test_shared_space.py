"""lockersh and Locker with several lockerd on a real etcd: the one that serves goes, and nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker import Locker
from ipclocker.lock.client.keepalive import KeepAlive
from ipclocker.lock.server.table import RESERVED

from ..support import PROJECT
from ..support.etcd import Etcd
from ..support.fake_servers import ClassicServer
from ..support.replicas import Replica, Replicas
from ..support.site import Tool
from ..support.waiting import DEADLINE, wait_for

WAYS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def replicas(etcd: Etcd, tmp_path: Path) -> Iterator[Replicas]:
    with Replicas(etcd, tmp_path / "logs") as replicas:
        yield replicas


class Tools:
    """Runs tools of the source tree; those that run still are killed in the end."""

    def __init__(self, folder: Path, hosts: list[str]) -> None:
        self.folder = folder
        self.hosts = hosts
        self._started: list[Tool] = []

    def command(self, name: str, *words: str) -> list[str]:
        where = ["--dhost", ":".join(f"[{host.rpartition(':')[0]}]:{host.rpartition(':')[2]}" for host in self.hosts)]
        return [sys.executable, "-m", "ipclocker", *name.split(), *where, *words]

    def lockersh(self, *words: str, lock: str = "x") -> Tool:
        """Start it."""
        stderr = self.folder / f"stderr.{len(self._started)}"
        command = self.command("lockersh", *(f"--lock={name}" for name in lock.split()), *words)
        with stderr.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=PROJECT,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                env={name: value for name, value in os.environ.items() if not name.startswith("IPCLOCKER")},
            )
        self._started.append(Tool(process, stderr))
        return self._started[-1]

    def hold(self, *words: str, lock: str = "x", status: int = 7) -> Tool:
        """Hold a lock until `finish`, and then end with this status."""
        script = f"echo $IPCLOCKER_TOKEN; echo $IPCLOCKER_SPACE; while [ ! -e {self.folder}/go ]; do sleep 0.02; done"
        return self.lockersh(*words, "--", "sh", "-c", f"{script}; exit {status}", lock=lock)

    def finish(self) -> None:
        (self.folder / "go").touch()

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = self.command(name, *words)
        return subprocess.run(command, cwd=PROJECT, text=True, capture_output=True, timeout=DEADLINE)

    def end(self) -> None:
        for tool in self._started:
            tool.process.kill()
            tool.process.communicate()


@pytest.fixture
def tools(replicas: Replicas, tmp_path: Path) -> Iterator[Tools]:
    tools = Tools(tmp_path, replicas.hosts)
    try:
        yield tools
    finally:
        tools.finish()
        tools.end()


def line_of(tool: Tool) -> str:
    assert tool.process.stdout is not None
    return tool.process.stdout.readline().strip()


def replace(replicas: Replicas, number: int) -> Replica:
    """Have the leader end, or start again, in one of these ways; who serves then."""
    leader = replicas.leader()
    if number == signal.SIGHUP:
        leader.send_signal(number)
        wait_for(lambda: leader.log().count("lockerd 1") == 2, "its new start")
        return replicas.leader()
    leader.kill(number)
    return replicas.leader(other_than=leader)


def waiters(server: Replica, name: str = "x") -> list[str]:
    """The users that wait for a lock, in their order."""
    found = (line.split() for line in server.ask(f"LOCK_INFO {name}"))
    return [words[3] for words in found if words[0] == "waiter"]


@pytest.mark.parametrize("number", WAYS, ids=lambda number: number.name)
@pytest.mark.parametrize("lease", [(), ("--lease", "45")], ids=["held", "leased"])
def test_a_command_under_a_lock_notices_nothing(
    replicas: Replicas, tools: Tools, number: int, lease: tuple[str, ...]
) -> None:
    tool = tools.hold(*lease)
    token = line_of(tool)
    follower = replace(replicas, number)
    assert follower.ask(f"CHECK x {token}") == ["current 1"]
    assert follower.ask("user other; locks x; LOCK")[1] == "locked 0"
    tools.finish()
    assert (tool.end(), tool.err) == (7, "")
    assert "x" not in replicas.leader().holders() or replicas.leader().holders()["x"] == RESERVED[0].decode()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_lock_is_given_back_that_nobody_serves_just_now(replicas: Replicas, tools: Tools, number: int) -> None:
    """For longer than --release-tries, if need be."""
    tool = tools.hold("--release-tries", "0.1", "--hold-timeout", "3600")
    token = line_of(tool)
    leader = replicas.leader()
    leader.kill(number)
    tools.finish()
    assert (tool.end(), tool.err) == (7, "")
    follower = replicas.leader(other_than=leader)
    assert follower.ask(f"CHECK x {token}") == ["current 0"]


@pytest.mark.parametrize("number", WAYS, ids=lambda number: number.name)
def test_waiters_have_the_lock_in_their_order_after_it(replicas: Replicas, tools: Tools, number: int) -> None:
    leader = replicas.leader()
    assert leader.ask("user h; session s; locks x; LOCK")[1] == "locked 1"
    order = tools.folder / "order"
    waiting = []
    for which in range(4):
        waiting.append(tools.lockersh("--", "sh", "-c", f"echo {which} >>{order}"))
        wait_for(lambda which=which: len(waiters(leader)) == which + 1, "it to wait")  # type: ignore[misc]
    follower = replace(replicas, number)
    wait_for(lambda: len(waiters(follower)) == 4, "all to wait again")
    follower.ask("user h; session s; locks x; UNLOCK")
    assert [(tool.end(), tool.err) for tool in waiting] == [(0, "")] * 4
    assert order.read_text().split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("number", WAYS, ids=lambda number: number.name)
def test_of_several_locks_one_is_held_and_another_waited_for(replicas: Replicas, tools: Tools, number: int) -> None:
    leader = replicas.leader()
    assert leader.ask("user h; session s; locks b; LOCK")[1] == "locked 1"
    tool = tools.hold("--all", "--lease", "45", lock="a b")
    wait_for(lambda: len(waiters(leader, "b")) == 1, "it to wait")
    follower = replace(replicas, number)
    wait_for(lambda: len(waiters(follower, "b")) == 1, "it to wait again")
    assert "a" in follower.holders()
    follower.ask("user h; session s; locks b; UNLOCK")
    tokens = line_of(tool).split()
    assert [follower.ask(f"CHECK {name} {token}") for name, token in zip("ab", tokens)] == [["current 1"]] * 2
    tools.finish()
    assert (tool.end(), tool.err) == (7, "")


@pytest.mark.parametrize("number", WAYS, ids=lambda number: number.name)
@pytest.mark.parametrize("lease", [(), ("--lease", "45")], ids=["held", "leased"])
def test_the_lock_of_a_process_that_runs_already(
    replicas: Replicas, tools: Tools, number: int, lease: tuple[str, ...]
) -> None:
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        taken = tools.run("lockersh", "--for", str(sleeper.pid), "--lock", "x", "--print", *lease)
        token = taken.stdout.splitlines()[1].partition("=")[2]
        follower = replace(replicas, number)
        assert follower.ask(f"CHECK x {token}") == ["current 1"]
        assert tools.run("lockersh", "--for", str(sleeper.pid), "--lock", "x", "--print", *lease).stdout == taken.stdout
        released = tools.run("lockersh", "--for", str(sleeper.pid), "--release", "--lock", "x")
        assert (released.returncode, released.stderr) == (0, "")
        assert follower.ask(f"CHECK x {token}") == ["current 0"]
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_the_lock_space_of_a_token_is_the_same_at_every_server(replicas: Replicas, tools: Tools) -> None:
    tool = tools.hold()
    token, space = line_of(tool), line_of(tool)
    assert replicas.leader().ask("space 1; locks z; STATUS")[0].split()[1] == space
    follower = replace(replicas, signal.SIGTERM)
    assert follower.ask("space 1; locks z; STATUS")[0].split()[1] == space
    assert tools.run("lockstat verify", "x", token).returncode == 0
    assert tools.run("lockstat verify", "x", str(int(token) + 1)).returncode == 1


def test_a_run_within_a_run_goes_on(replicas: Replicas, tools: Tools) -> None:
    inner = " ".join(tools.command("lockersh", "--nested", "--lock", "x", "--", "sh", "-c"))
    go = tools.folder / "go"
    tool = tools.lockersh("--", "sh", "-c", f"{inner} 'echo inner; while [ ! -e {go} ]; do sleep 0.02; done; exit 5'")
    assert line_of(tool) == "inner"
    follower = replace(replicas, signal.SIGKILL)
    follower.ask("locks x; BREAK_LOCK")  # which the inner one is told by the server that serves now
    tool.says("of the outer run was lost")
    assert tool.end() == 76 or tool.end() == 143


def test_a_classic_server_in_the_list_is_not_asked_for_what_is_held_in_the_space(
    replicas: Replicas, tools: Tools
) -> None:
    with ClassicServer() as classic:
        tools.hosts = [*replicas.hosts, f"127.0.0.1:{classic.port}"]
        tool = tools.hold("--lease", "45")
        token = line_of(tool)
        follower = replace(replicas, signal.SIGKILL)
        tools.finish()
        assert (tool.end(), tool.err) == (7, "")
        assert follower.ask(f"CHECK x {token}") == ["current 0"]
        assert not [event for event in classic.events if event[0] in ("LOCK", "UNLOCK")]


# Lockers


def locker(replicas: Replicas, **parameters: object) -> Locker:
    hosts = [f"[127.0.0.1]:{replica.port}" for replica in replicas.all]
    return Locker("x", host=hosts, **parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", WAYS, ids=lambda number: number.name)
@pytest.mark.parametrize("lease", [0, 30])
def test_a_locker_holds_its_lock_through_it(replicas: Replicas, number: int, lease: float) -> None:
    with locker(replicas, lease=lease) as lock:
        token = lock.token
        follower = replace(replicas, number)
        assert follower.ask(f"CHECK x {token}") == ["current 1"]
        assert not lock.lost.is_set()
        assert lock.lock() is not None and lock.token == token
        follower = replace(replicas, signal.SIGTERM) if number == signal.SIGHUP else follower
        assert not lock.lost.is_set()
    assert follower.ask(f"CHECK x {token}") == ["current 0"]


def test_a_lease_is_renewed_by_the_next_server(replicas: Replicas) -> None:
    with locker(replicas, lease=12) as lock:
        replace(replicas, signal.SIGKILL)
        until = lock.until
        wait_for(lambda: lock.until > until, "a renewal")
        assert not lock.lost.is_set()


def test_a_task_waits_through_it(replicas: Replicas) -> None:
    leader = replicas.leader()
    assert leader.ask("user h; session s; locks x; LOCK")[1] == "locked 1"

    async def wait() -> int | None:
        async with locker(replicas) as lock:
            return lock.token

    async def both() -> int | None:
        task = asyncio.create_task(wait())
        loop = asyncio.get_running_loop()

        def go() -> None:
            wait_for(lambda: len(waiters(leader)) == 1, "it to wait")
            follower = replace(replicas, signal.SIGKILL)
            wait_for(lambda: len(waiters(follower)) == 1, "it to wait again")
            follower.ask("user h; session s; locks x; UNLOCK")

        await loop.run_in_executor(None, go)
        return await task

    assert asyncio.run(both())


def test_many_lockers_and_many_fail_overs(replicas: Replicas) -> None:
    """One at a time, with tokens that only grow."""
    inside: list[int] = []
    seen: list[int] = []
    problems: list[BaseException] = []
    over = threading.Event()

    def work() -> None:
        try:
            while not over.is_set():
                with locker(replicas, lease=45) as lock:
                    inside.append(1)
                    assert len(inside) == 1 and lock.token is not None
                    assert not seen or lock.token > seen[-1]
                    seen.append(lock.token)
                    inside.pop()
        except BaseException as problem:  # noqa: BLE001 - shown in the thread of the test
            problems.append(problem)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            count = len(seen)
            replace(replicas, number)
            wait_for(lambda count=count: len(seen) > count + 20 or problems, "more grants")  # type: ignore[misc]
    finally:
        over.set()
        for thread in threads:
            thread.join(DEADLINE)
    assert not problems and not any(thread.is_alive() for thread in threads)


def test_keepalives_find_a_host_that_is_gone_soon(replicas: Replicas) -> None:
    import socket

    with locker(replicas, lease=30) as lock:
        renewal = lock._holding._renewal
        assert renewal is not None
        keepalive: KeepAlive = renewal._keepalive
        wait_for(lambda: keepalive._connector.connection is not None, "its connection")
        connection = lock._holding.acquisition.connector.connection
        assert connection is not None
        options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT]
        for each in (connection, keepalive._connector.connection):
            assert each is not None
            assert [each.sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [2, 1, 3, 5000]
