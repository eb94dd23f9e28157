"""Locks whose holders are on another host: two hosts with a network, a name and a pid namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support import PROJECT
from ..support.processes import children
from ..support.waiting import wait_for

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare"))),
    reason="hosts of its own take root, ip, nsenter and unshare",
)


class Host:
    """A host: processes run on it are ended with it."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.net = f"ipclocker-{os.getpid()}-{name}"
        subprocess.run(["ip", "netns", "add", self.net], check=True)
        init = f"hostname {name}; echo up; exec sleep 1000000"
        unshare = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", init]
        self._unshare = subprocess.Popen(
            ["ip", "netns", "exec", self.net, *unshare], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == b"up\n"
        self._init = wait_for(lambda: children(self._unshare.pid), "the host's first process")[0]
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *words: str) -> list[str]:
        """The words that run a command on this host."""
        return ["nsenter", f"--target={self._init}", "--net", "--uts", "--pid", "--mount", *words]

    def run(self, *words: str) -> str:
        return subprocess.run(self.command(*words), check=True, stdout=subprocess.PIPE, text=True).stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> None:
        self._unshare.kill()
        self._unshare.wait()
        assert self._unshare.stdout is not None
        self._unshare.stdout.close()
        subprocess.run(["ip", "netns", "del", self.net], check=False)


class Cluster:
    """Two hosts with a cable between them, and lockerd on `home`."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self._folder = str(file), folder
        self.away, self.home = Host("away", "10.98.76.1"), Host("home", "10.98.76.2")
        self._started: list[subprocess.Popen[str]] = []
        subprocess.run(
            [
                "ip",
                "-n",
                self.away.net,
                "link",
                "add",
                "cable",
                "type",
                "veth",
                "peer",
                "cable",
                "netns",
                self.home.net,
            ],
            check=True,
        )
        for host in (self.away, self.home):
            host.run("ip", "addr", "add", f"{host.address}/24", "dev", "cable")
        self.join()
        self.start(self.home, "lockerd", "--nofork", "--host", "0.0.0.0", "--state-dir", str(folder))
        self.start(self.away, "pidstatd", "--nofork")
        wait_for(lambda: self.locks() == "", "the lock server")

    def start(self, host: Host, *words: str) -> subprocess.Popen[str]:
        process = host.start(self.file, *words)
        self._started.append(process)
        return process

    def locks(self) -> str | None:
        listed = subprocess.run(
            self.home.command(self.file, "lockersh", "--connect-tries", "1", "--locklist"),
            capture_output=True,
            text=True,
            check=False,
        )
        return None if listed.returncode else listed.stdout

    def is_held(self) -> bool:
        return bool(self.locks())

    def stays_held(self, seconds: float) -> bool:
        """There is no event to wait for that something does not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.is_held():
                return False
            time.sleep(0.2)
        return True

    def hold(self, *around: str) -> int:
        """A process on the other host that holds a lock and is not the child of a lockersh; its number there.

        `around` are the words of a command to run it in.
        """
        note = self._folder / "pid"
        program = (
            "import os, sys, time; sys.path.insert(0, sys.argv[1]); from ipclocker import Locker; "
            "lock = Locker(lock='x', host=sys.argv[2], timeout=0, autounlock=True, destroy_unlock=False).lock(); "
            "open(sys.argv[3], 'w').write(str(os.getpid())); time.sleep(1000)"
        )
        root = str(PROJECT)
        process = self.away.start(*around, "/usr/bin/python3", "-c", program, root, self.home.address, str(note))
        self._started.append(process)
        return int(wait_for(lambda: note.exists() and note.read_text(), "the holder"))

    def cut(self) -> None:
        subprocess.run(["ip", "-n", self.home.net, "link", "set", "cable", "down"], check=True)

    def join(self) -> None:
        for host in (self.away, self.home):
            subprocess.run(["ip", "-n", host.net, "link", "set", "cable", "up"], check=True)

    def end(self) -> None:
        for host in (self.away, self.home):
            host.end()
        for process in self._started:
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def cluster(built_file: Path, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(built_file, tmp_path)
    try:
        yield cluster
    finally:
        cluster.end()


def test_a_holder_that_is_killed(cluster: Cluster) -> None:
    pid = cluster.hold()
    assert cluster.stays_held(2.5), "its pid server says that it lives"
    cluster.away.run("kill", "-9", str(pid))
    killed = time.monotonic()
    wait_for(lambda: not cluster.is_held(), "the lock to be free")
    assert time.monotonic() - killed < 3


def test_a_command_whose_lockersh_is_killed_with_it(cluster: Cluster) -> None:
    tool = cluster.start(cluster.away, "lockersh", "--dhost", cluster.home.address, "--lock", "x", "sleep 1000")
    wait_for(cluster.is_held, "the lock to be taken")
    cluster.away.run("pkill", "-9", "-f", "lockersh --dhost")
    killed = time.monotonic()
    tool.wait()
    wait_for(lambda: not cluster.is_held(), "the lock to be free")
    assert time.monotonic() - killed < 3


def test_a_host_that_is_cut_off_and_comes_back(cluster: Cluster) -> None:
    """Silence frees nothing; the same number given to another process does not hold the lock."""
    pid = cluster.hold()
    cluster.cut()
    cluster.away.run("kill", "-9", str(pid))
    assert cluster.stays_held(4), "silence frees nothing"
    cluster.away.run("sh", "-c", f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid; exec setsid -f sleep 1000 >/dev/null")
    cluster.away.run("kill", "-0", str(pid))  # the number is another process's now
    cluster.join()
    wait_for(lambda: not cluster.is_held(), "the lock to be free")


def test_a_holder_in_a_container(cluster: Cluster) -> None:
    """The pid server of the host can't see it, so nobody knows, so the lock stays."""
    cluster.hold("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    cluster.away.run("pkill", "-9", "-f", "autounlock=True")
    assert cluster.stays_held(4), "what a pid server does not know frees nothing"
