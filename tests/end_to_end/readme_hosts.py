"""The hosts that the README's examples name, with an `ssh` and an `scp` that reach them. Needs root.

Each has its own name, network, processes, /usr/local/bin, /run, /var/lib, /var/cache and home folder. ssh is a
program here that does what ssh does: words joined by a space, in a shell of the other host, in the home folder there.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..support.site import Node, Site, new_nodes
from ..support.waiting import DEADLINE

NAMES = ("lockhost", "worker", "host1")
_OWN = ("/usr/local/bin", "/run", "/var/lib", "/var/cache", "/opt", "/etc/systemd/system")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_SSH = """#!/bin/sh
host=$1; shift
case $host in
{cases}*) echo "ssh: Could not resolve hostname $host" >&2; exit 255 ;;
esac
exec nsenter --target=$pid --mount --uts --net --pid \\
    env -i HOME={homes}/$host USER=root PATH={path} sh -c "cd; $*"
"""
_SCP = """#!/bin/sh
# What stands before the colon is a host, what stands behind it a folder there.
tar -ch -C "$(dirname "$1")" "$(basename "$1")" | ssh "${2%%:*}" tar -x --no-same-owner -C "${2#*:}"
"""
# It runs until there is a file `go`, and notes when it begins and ends, and what it was told about its lock.
_MAKEFILE = """regress:
	@echo "begin $$(uname -n) $$IPCLOCKER_LOCK $$IPCLOCKER_TOKEN" >>notes.log
	@until [ -e go ]; do sleep 0.05; done
	@echo end >>notes.log
"""


class Hosts:
    """The hosts and somebody's host beside them, where the README's commands are typed."""

    def __init__(self, site: Site, nodes: list[Node]) -> None:
        self.site = site
        self.nodes = {node.name: node for node in nodes}
        self.here = site.folder / "here"
        for folder in (self.here / "dist", self.here / "bin"):
            folder.mkdir(parents=True)
        (self.here / "dist/ipclocker").symlink_to(site.file)
        (self.here / "bin/ipclocker").symlink_to(site.file)
        self.five = (0, "")  # how the README's five lines ended, when they were run
        cases = "".join(f"{node.name}) pid={node.pid} ;;\n" for node in nodes)
        self._write("ssh", _SSH.format(cases=cases, homes=site.folder, path=_PATH))
        self._write("scp", _SCP)
        self.environment = {**site.environment, "PATH": f"{self.here}/bin:{_PATH}"}
        for node in nodes:
            self._set_up(node)

    def _write(self, name: str, text: str) -> None:
        path = self.here / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def _set_up(self, node: Node) -> None:
        for folder in filter(lambda folder: Path(folder).is_dir(), _OWN):
            node.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        self.home(node.name).mkdir()
        (self.home(node.name) / "Makefile").write_text(_MAKEFILE)

    def home(self, host: str) -> Path:
        """The home folder there."""
        return self.site.folder / host

    def notes(self, host: str) -> list[str]:
        """The notes of `make regress` there."""
        log = self.home(host) / "notes.log"
        return log.read_text().splitlines() if log.exists() else []

    def go(self, host: str, free: bool = True) -> None:
        """True if `make regress` may end there."""
        (self.home(host) / "go").touch()
        if not free:
            (self.home(host) / "go").unlink()

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start what somebody types here, in a group of its own; its output is read by `ended`."""
        return subprocess.Popen(
            ["sh", "-euc", script],
            cwd=self.here,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, script: str) -> tuple[int, str]:
        """Run it to its end: the exit code, the output."""
        return ended(self.start(script))

    def on(self, host: str, script: str) -> tuple[int, str]:
        """Run a script in a shell on a host, in the home folder: the exit code, the output."""
        return ended(self.start_on(host, script))

    def start_on(self, host: str, script: str) -> subprocess.Popen[str]:
        """Start a script in a shell on a host, in the home folder."""
        return subprocess.Popen(
            [str(self.here / "bin/ssh"), host, script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sleeper(self, host: str, pid: int) -> subprocess.Popen[str]:
        """A process with this number on a host."""
        while True:  # another process may have taken the number meanwhile
            self.nodes[host].run("sh", "-c", f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid")
            process = self.start_on(host, "echo $$; exec sleep 1000")
            assert process.stdout is not None
            if (got := int(process.stdout.readline())) == pid:
                return process
            self.nodes[host].kill(got)
            process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end, and until nobody can write to its output any more: the exit code, the output."""
    out = process.communicate(timeout=3 * DEADLINE)[0]
    return process.returncode, out


@contextlib.contextmanager
def new_hosts(site: Site, *names: str) -> Iterator[Hosts]:
    """Hosts of these names (NAMES) that end with the block, with all that runs there."""
    with new_nodes(site, *(names or NAMES)) as nodes:
        yield Hosts(site, nodes)
