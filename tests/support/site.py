"""The built file as its users run it: a private lock server, tools beside it, and an end to all of them.

Nodes are hosts that are namespaces: each has its own name, network, processes and hosts file. They need root. They are
on one network, 10.99.0.1, 10.99.0.2 and so on, and find each other by name. Nothing of it is left when the first
process of each is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from .processes import children, living_children
from .waiting import DEADLINE, wait_for

PYTHON = "/usr/bin/python3"  # what the file's first line names
NOBODY_UID = 65534
VERSION_LINE = re.compile(r"Version: \d+\.\d+\.\d+\n")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as two users")
_NAMESPACES = ["unshare", "--pid", "--mount", "--propagation", "private", "--uts", "--net", "--fork", "--kill-child"]
_BOOT = "mount -t proc proc /proc; mount --bind $2 /etc/hosts; hostname $1; ip link set lo up; "
# What a namespace does not have of its own, and a machine has: the id of its boot, its id, the time since its boot.
_OWN_IDS = (
    "mount --bind $3 /proc/sys/kernel/random/boot_id; "
    "if [ -e /etc/machine-id ]; then mount --bind $4 /etc/machine-id; fi; "
)
_READY = "exec sleep infinity"


class Run:
    """Runs the built file with a cache of its own."""

    def __init__(self, file: Path, cache: Path) -> None:
        self.file = file
        self.cache = cache

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "IPCLOCKER_CACHE": str(self.cache), **more}

    def __call__(self, *before: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `BEFORE ipclocker lockersh --version`; `more` goes to subprocess.run."""
        command = [*before, self.file, "lockersh", "--version"]
        more.setdefault("env", self.environment())
        return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)

    def works(self, *before: str | Path, **more: Any) -> None:
        done = self(*before, **more)
        assert (done.returncode, done.stderr) == (0, "")
        assert VERSION_LINE.fullmatch(done.stdout)

    @property
    def folder(self) -> Path:
        return self.cache / f"ipclocker-{os.geteuid()}"

    @property
    def pack(self) -> Path:
        """The one file in the cache."""
        [path] = self.folder.iterdir()
        return path


class Tool:
    """A tool that runs; its stderr is in a file, to be read at any time."""

    def __init__(self, process: subprocess.Popen[str], stderr: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._stderr = stderr

    @property
    def err(self) -> str:
        return self._stderr.read_text(errors="surrogateescape")

    def says(self, text: str) -> None:
        """Wait until it has said that on stderr."""
        wait_for(lambda: text in self.err or self.process.poll() is not None, f"'{text}' on stderr")
        assert text in self.err

    def child(self) -> int:
        """The process that is or becomes the command; to be asked for when lockersh has asked for the lock."""
        return wait_for(lambda: living_children(self.pid), "the child")[-1]

    def end(self) -> int:
        """Wait for the end: the exit code, or the signal's number as a negative one."""
        return self.process.wait(DEADLINE)

    def out(self) -> str:
        """Wait for the end; all of stdout."""
        return self.process.communicate(timeout=DEADLINE)[0]


class Site:
    """A folder, the environment that tools run in, and a lock server on a UNIX socket there if `serve` is called."""

    def __init__(self, file: Path, cache: Path) -> None:
        self.file = str(file)
        self.folder = Path(tempfile.mkdtemp(prefix="ipcl"))  # a UNIX socket's name has to be short
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("IPCLOCKER")},
            "IPCLOCKER_CACHE": str(cache),
            "IPCLOCKER_PORT": str(self.folder / "lockerd"),
            "STATE_DIRECTORY": str(self.folder / "state"),
        }
        self.server: Tool | None = None
        self._tools: list[Tool] = []
        self._started = 0
        self._bystanders: list[int] = []

    def start(self, *words: str | Path, stdout: int | IO[Any] | None = subprocess.DEVNULL, **more: Any) -> Tool:
        """Start `ipclocker WORDS`."""
        self._started += 1
        stderr = self.folder / f"stderr.{self._started}"
        more.setdefault("env", self.environment)
        more.setdefault("stdin", subprocess.DEVNULL)
        with stderr.open("w") as file:
            process = subprocess.Popen([self.file, *map(str, words)], text=True, stdout=stdout, stderr=file, **more)
        tool = Tool(process, stderr)
        self._tools.append(tool)
        return tool

    def run(self, *words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `ipclocker WORDS` to its end."""
        more.setdefault("env", self.environment)
        more.setdefault("stdin", subprocess.DEVNULL)
        more.setdefault("capture_output", True)
        more.setdefault("errors", "surrogateescape")
        return subprocess.run([self.file, *map(str, words)], text=True, timeout=DEADLINE, **more)

    def lockersh(self, *words: str | Path, lock: str = "x", **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `lockersh --lock LOCK WORDS` to its end."""
        return self.run("lockersh", "--lock", lock, *words, **more)

    def start_lockersh(self, *words: str | Path, lock: str = "x", **more: Any) -> Tool:
        """Start `lockersh --lock LOCK --verbose WORDS`."""
        return self.start("lockersh", "--lock", lock, "--verbose", *words, **more)

    def hold(self, lock: str = "x") -> Tool:
        """Hold a lock until the tool is ended; on return it is held."""
        holder = self.start_lockersh("sleep 1000", lock=lock)
        wait_for(lambda: lock in self.locks(), f"the lock {lock} to be held")
        return holder

    def serve(self, *options: str, debug: bool = False) -> Tool:
        """Start the lock server (IPCLOCKER_PORT names its socket) and wait until it is there.

        It remembers nothing beyond its end, unless the options have it otherwise.
        """
        words = ["--debug", *options] if debug else list(options)
        if not any(word.startswith("--state") for word in words):
            words += ["--state", "none"]
        self.server = self.start("lockerd", "--nofork", *words)
        wait_for(lambda: self.answers() or self.server is None or self.server.process.poll() is not None, "lockerd")
        assert self.server.process.poll() is None, self.server.err
        return self.server

    def serve_tcp(self, host: str = "127.0.0.1") -> Tool:
        """Start the lock server on a port that the system picks; IPCLOCKER_HOST and IPCLOCKER_PORT name it."""
        self.environment["IPCLOCKER_HOST"] = f"[{host}]" if ":" in host else host
        self.server = self.start("lockerd", "--nofork", "--state", "none", "--host", host, "--port", "0")
        self.server.says("listening on ")
        found = re.search(r"listening on (\S+):(\d+)", self.server.err)
        assert found is not None
        self.environment["IPCLOCKER_PORT"] = found[2]
        return self.server

    def answers(self) -> bool:
        """Ask the server for its version: true if it answers."""
        try:
            return self.ask(b"VERSION").startswith(b"version")
        except OSError:
            return False

    def ask(self, request: bytes) -> bytes:
        """Send a request on a connection of its own; all that the server answers."""
        port = self.environment["IPCLOCKER_PORT"]
        family = socket.AF_UNIX if "/" in port else socket.AF_INET6 if "[" in self._host() else socket.AF_INET
        with socket.socket(family) as client:
            client.settimeout(DEADLINE)
            client.connect(port if "/" in port else (self._host().strip("[]"), int(port)))
            client.sendall(request + b"\nEOF\n")
            return b"".join(iter(lambda: client.recv(65_536), b""))

    def _host(self) -> str:
        return self.environment.get("IPCLOCKER_HOST", "")

    def free(self, *names: str) -> None:
        """Break locks: who held them was killed."""
        self.ask(f"locks {' '.join(names)}\nBREAK_LOCK".encode())

    def locks(self) -> dict[str, str]:
        """The names that are held, and by whom."""
        lines = self.ask(b"LOCK_LIST").decode().splitlines()
        return {line.split()[1]: line.split()[2] for line in lines if line.startswith("lock ")}

    def watch(self, tool: Tool) -> None:
        """A tool that was started in another way is to end with the test."""
        self._tools.append(tool)

    def ends_with(self, *pids: int) -> None:
        """These processes, which are no children of ours, are to end with the test."""
        self._bystanders += pids

    def end_tools(self) -> None:
        """End all that was started but the server, and what that has left."""
        for tool in self._tools:
            if tool is self.server:
                continue
            self._bystanders += children(tool.pid)
            tool.process.send_signal(signal.SIGCONT)
            tool.process.kill()
            tool.process.communicate()
        for pid in self._bystanders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._tools = [self.server] if self.server is not None else []
        self._bystanders = []

    def clean_up(self) -> None:
        """End all that was started."""
        self.server = None
        self.end_tools()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def new_site(file: Path, cache: Path) -> Iterator[Site]:
    """A site that ends with the block."""
    site = Site(file, cache)
    try:
        yield site
    finally:
        site.clean_up()


def nodes_can_be_made(machines: bool = False) -> bool:
    """Try to make such namespaces: true if this user can have them here."""
    namespaces = [*_NAMESPACES, *(_uptime(1) if machines else ())]
    try:
        made = subprocess.run([*namespaces, "sh", "-c", "mount -t proc proc /proc; ip link"], capture_output=True)
    except OSError:
        return False
    return made.returncode == 0


def _uptime(seconds: int) -> list[str]:
    """Options for unshare(1): the clocks that count from the boot show so much more."""
    return ["--time", "--monotonic", str(seconds), "--boottime", str(seconds)]


class Node:
    """A host; with an `uptime` in seconds it looks like a machine of its own, which was booted so much earlier."""

    def __init__(self, site: Site, name: str, address: str, hosts: Path, uptime: int = 0) -> None:
        self.site = site
        self.name = name
        self.address = address
        self.uptime = uptime
        self._enter = ["--mount", "--uts", "--net", "--pid", *(["--time"] if uptime else [])]
        namespaces = [*_NAMESPACES, *(_uptime(uptime) if uptime else ())]
        boot, machine = site.folder / f"boot_id.{name}", site.folder / f"machine-id.{name}"
        boot.write_text(f"{uuid.uuid4()}\n")
        machine.write_text(f"{uuid.uuid4().hex}\n")
        script = f"{_BOOT}{_OWN_IDS if uptime else ''}{_READY}"
        self._first = subprocess.Popen([*namespaces, "sh", "-euc", script, "boot", name, hosts, boot, machine])
        self.pid = wait_for(lambda: children(self._first.pid), "the first process of a host")[0]
        comm = Path(f"/proc/{self.pid}/comm")
        wait_for(lambda: comm.read_text() == "sleep\n", "the host to be up")

    def words(self, *words: str) -> list[str]:
        """The words of a command there."""
        return ["nsenter", f"--target={self.pid}", *self._enter, *words]

    def start(self, *words: str) -> Tool:
        """Start a command there."""
        stderr = self.site.folder / f"stderr.{self.name}.{len(list(self.site.folder.iterdir()))}"
        with stderr.open("w") as file:
            process = subprocess.Popen(
                self.words(*words),
                env=self.site.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        tool = Tool(process, stderr)
        self.site.watch(tool)
        return tool

    def run(self, *words: str, **more: Any) -> str:
        """Run a command there to its end, which is a good one; what it printed."""
        out: str = subprocess.run(self.words(*words), check=True, text=True, stdout=subprocess.PIPE, **more).stdout
        return out

    def serve(self) -> Tool:
        """Start the pid server there."""
        tool = self.start(self.site.file, "pidstatd", "--nofork")
        tool.says("listening on ")
        return tool

    def sleeper(self) -> int:
        """The number, there, of a process that sleeps."""
        tool = self.start("sh", "-c", "echo $$; exec sleep 1000")
        assert tool.process.stdout is not None
        return int(tool.process.stdout.readline())

    def kill(self, pid: int) -> None:
        """Kill a process by its number there."""
        self.run("kill", "-9", str(pid))

    def cut(self, off: bool = True) -> None:
        """Take the host off the network, or put it back."""
        self.run("ip", "link", "set", "eth0", "down" if off else "up")

    def hear(self, *addresses: str, deaf: bool = False) -> None:
        """Take packets from these hosts again; `deaf`: take none, and say nothing of it. It still sends to them."""
        verb = "add" if deaf else "del"
        # Rules for packets that come in have to stand before the one that says which addresses are its own.
        own = "ip rule show pref 100 | grep -q . || { ip rule add pref 100 lookup local; ip rule del pref 0; }; "
        rules = [f"ip rule {verb} pref 10 iif eth0 from {address} blackhole" for address in addresses]
        self.run("sh", "-euc", own + "; ".join(rules))

    def end(self) -> None:
        """End all that runs there."""
        self._first.kill()
        self._first.wait()


@contextlib.contextmanager
def new_nodes(site: Site, *names: str, machines: bool = False) -> Iterator[list[Node]]:
    """Hosts of these names, on a network whose switch is on the first; `machines` look like machines of their own."""
    addresses = [f"10.99.0.{number}" for number in range(1, len(names) + 1)]
    hosts = site.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(map("{} {}\n".format, addresses, names)))
    nodes: list[Node] = []
    try:
        for number, (name, address) in enumerate(zip(names, addresses)):
            nodes.append(Node(site, name, address, hosts, uptime=1000 * (number + 1) if machines else 0))
        _connect(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.end()


def _connect(nodes: list[Node]) -> None:
    switch = nodes[0]
    switch.run("ip", "link", "add", "switch", "type", "bridge")
    switch.run("ip", "link", "set", "switch", "up")
    for number, node in enumerate(nodes):
        pair = f"ip link add port{number} type veth peer name eth0 netns {node.pid}"
        # By its number the host's network is known outside only, so that is where the pair is made.
        subprocess.run(["nsenter", f"--target={switch.pid}", "--net", *shlex.split(pair)], check=True)
        switch.run("ip", "link", "set", f"port{number}", "master", "switch", "up")
        node.run("ip", "address", "add", f"{node.address}/24", "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "up")
