"""Holders and waiters in places that are not what they seem: other boots, namespaces, and a /proc of somebody else.

Each of these had let a second command in, or would leave a lock held for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.processes import children, in_no_namespace
from ..support.site import Site, Tool
from ..support.waiting import wait_for

pytestmark = pytest.mark.skipif(in_no_namespace() is None, reason="it takes root in the first pid namespace")
ANOTHER_BOOT = "cat /proc/sys/kernel/random/uuid >/run/boot; mount --bind /run/boot /proc/sys/kernel/random/boot_id"
OWN_RUN = "mount -t tmpfs tmpfs /run"
LOOK_AGAIN = 2.0  # seconds in which lockerd looks at each holder of another place (poll_schedule.py)


class Network:
    """A network of its own, so that lockerd and pidstatd have their usual ports; the processes are this host's."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._init = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; echo up; exec sleep 1000000"], stdout=subprocess.PIPE
        )
        assert self._init.stdout is not None and self._init.stdout.readline() == b"up\n"
        site.environment["IPCLOCKER_PORT"] = "1751"
        self.start("lockerd", "--nofork", "--state", "none").says("listening on")

    def start(self, *words: str, within: tuple[str, ...] = (), before: str = ":") -> Tool:
        """Start `ipclocker WORDS`, in namespaces that unshare(1) makes `within`, after a bit of shell there."""
        script = f'{before}; exec "$@"'
        unshare = ["unshare", *within] if within else []
        command = [*unshare, "sh", "-euc", script, "sh", self._site.file, *words]
        stderr = self._site.folder / f"inside.{time.monotonic_ns()}"
        with stderr.open("w") as file:
            process = subprocess.Popen(
                ["nsenter", "--net", f"--target={self._init.pid}", *command],
                env=self._site.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        tool = Tool(process, stderr)
        self._site.watch(tool)
        return tool

    def pidstatd(self) -> None:
        self.start("pidstatd", "--nofork", "--host", "127.0.0.1").says("listening on")

    def hold(self, *options: str, within: tuple[str, ...] = (), before: str = ":") -> Tool:
        """Hold the lock x; on return its command runs."""
        holder = self.start(
            "lockersh", "--lock", "x", *options, "echo in; exec sleep 1000", within=within, before=before
        )
        assert holder.process.stdout is not None
        assert holder.process.stdout.readline() == "in\n", holder.err
        return holder

    def gets_in(self, wait: float) -> bool:
        """Tell if another lockersh gets the lock within so many seconds."""
        second = self.start("lockersh", "--timeout", f"{wait:g}", "--lock", "x", "true")
        code = second.end()
        assert code in (0, 75), second.err
        return code == 0

    def request(self, text: str) -> str:
        """Send a request to lockerd on a connection of its own; the answer."""
        program = (
            "import socket, sys; s = socket.create_connection(('127.0.0.1', 1751)); s.sendall(sys.argv[1].encode()); "
            "print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
        )
        command = ["nsenter", "--net", f"--target={self._init.pid}", sys.executable, "-c", program, text + "\nEOF\n"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def end(self) -> None:
        self._init.kill()
        self._init.communicate()


@pytest.fixture
def network(site: Site) -> Iterator[Network]:
    network = Network(site)
    yield network
    network.end()


@pytest.mark.parametrize("has_pidstatd", [False, True])
@pytest.mark.parametrize("namespaces", [("--mount",), ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")])
def test_a_holder_with_another_boot_id_keeps_its_lock(
    network: Network, namespaces: tuple[str, ...], has_pidstatd: bool
) -> None:
    if has_pidstatd:
        network.pidstatd()
    holder = network.hold(within=namespaces, before=f"{OWN_RUN}; {ANOTHER_BOOT}")
    assert not network.gets_in(2 * LOOK_AGAIN + 0.5)
    assert holder.process.poll() is None


@pytest.mark.parametrize("before", [":", "mount -t tmpfs tmpfs /proc/sys"])
def test_a_holder_whose_proc_is_not_its_own_keeps_its_lock(network: Network, before: str) -> None:
    network.pidstatd()
    holder = network.hold(within=("--mount", "--pid", "--fork", "--kill-child"), before=before)
    assert not network.gets_in(2 * LOOK_AGAIN + 0.5)
    assert holder.process.poll() is None
    assert "pid" not in network.request("LOCK_INFO x").split(), "no process is told"


@pytest.mark.parametrize("mount_proc", [(), ("--mount-proc",)])
def test_a_waiter_in_a_namespace_says_nobody_dead(network: Network, mount_proc: tuple[str, ...]) -> None:
    """It has the host's name, and the holder's number means nothing to it."""
    me = f"user ann\nlocks x\nautounlock 1\npid {os.getpid()}\nhostname {os.uname().nodename}\nLOCK"
    assert "locked 1" in network.request(me)
    waiter = network.start(
        "lockersh", "--lock", "x", "echo SECOND", within=("--pid", "--fork", "--kill-child", *mount_proc)
    )
    assert not network.gets_in(2.0)
    assert waiter.process.poll() is None


@pytest.mark.parametrize("has_own_time", [False, True])
def test_the_lock_of_a_killed_container_comes_free_where_a_pid_server_sees_it(
    network: Network, has_own_time: bool
) -> None:
    network.pidstatd()
    own_time = ("--time", "--boottime", "1000000") if has_own_time else ()
    holder = network.hold(within=("--pid", "--fork", "--mount-proc", *own_time))
    assert not network.gets_in(LOOK_AGAIN + 0.5)
    for pid in children(holder.pid) or [holder.pid]:
        os.kill(pid, 9)  # the first process of the namespace: all of it ends
    assert network.gets_in(30)


def test_of_a_killed_container_nobody_knows_without_one(network: Network) -> None:
    holder = network.hold(within=("--pid", "--fork", "--mount-proc"))
    for pid in children(holder.pid):
        os.kill(pid, 9)
    assert not network.gets_in(2 * LOOK_AGAIN + 0.5)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["lockersh", "--lock", "x", "--lease", "9", "true"], "--lease"),
        (["lockersh", "--lock", "x", "--on-lost", "kill", "true"], "--on-lost kill"),
        (["pidwatch", "--kill-tree", "--pid", "1", "true"], "--kill-tree"),
        (["supervise", "--nofork", "--lock", "x", "--program", "true"], "--lock"),
    ],
)
def test_what_has_to_see_descendants_is_refused_where_it_can_not(
    network: Network, words: list[str], option: str
) -> None:
    tool = network.start(*words, within=("--pid", "--fork", "--kill-child"))
    assert tool.end() == 64
    [line] = tool.err.splitlines()
    assert f"{option} has to see all that the command starts" in line and "mount one" in line


def test_a_hidden_proc_is_noticed_too(network: Network, tmp_path: Path) -> None:
    tool = network.start(
        "lockersh", "--lock", "x", "--lease", "9", "true", within=("--mount",), before="mount -t tmpfs tmpfs /proc"
    )
    assert tool.end() == 64 and "--lease has to see" in tool.err
    assert wait_for(lambda: network.gets_in(1), "the lock to be free")
