"""Hosts that are namespaces: each has its own name, network, processes and hosts file. Needs root.

They are on one network, 10.99.0.1, 10.99.0.2 and so on, and find each other by name. Nothing of it is left when the
first process of each is killed.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .site import Site, Tool, children, wait_for

_NAMESPACES = ["unshare", "--pid", "--mount", "--propagation", "private", "--uts", "--net", "--fork", "--kill-child"]
_BOOT = "mount -t proc proc /proc; mount --bind $2 /etc/hosts; hostname $1; ip link set lo up; exec sleep infinity"


def can_be_made() -> bool:
    """Whether there are such namespaces here, for this user."""
    try:
        made = subprocess.run([*_NAMESPACES, "sh", "-c", "mount -t proc proc /proc; ip link"], capture_output=True)
    except OSError:
        return False
    return made.returncode == 0


class Node:
    """A host."""

    def __init__(self, site: Site, name: str, address: str, hosts: Path) -> None:
        self.site = site
        self.name = name
        self.address = address
        self._first = subprocess.Popen([*_NAMESPACES, "sh", "-euc", _BOOT, "boot", name, hosts])
        self.pid = wait_for(lambda: children(self._first.pid), "the first process of a host")[0]
        comm = Path(f"/proc/{self.pid}/comm")
        wait_for(lambda: comm.read_text() == "sleep\n", "the host to be up")

    def words(self, *words: str) -> list[str]:
        """The words of a command there."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", *words]

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

    def end(self) -> None:
        """End all that runs there."""
        self._first.kill()
        self._first.wait()


@contextlib.contextmanager
def new_nodes(site: Site, *names: str) -> Iterator[list[Node]]:
    """Hosts of these names, on a network whose switch is on the first."""
    addresses = [f"10.99.0.{number}" for number in range(1, len(names) + 1)]
    hosts = site.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(map("{} {}\n".format, addresses, names)))
    nodes: list[Node] = []
    try:
        for name, address in zip(names, addresses):
            nodes.append(Node(site, name, address, hosts))
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
