"""A systemd that is process 1 of namespaces of its own, with nothing in it but its journal and the units of a test.

What it may write to is in memory and is gone afterwards, and so are all processes that it has started. The built
file is /run/bin/ipclocker there: in a folder that a service sees.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.processes import children
from ..support.waiting import wait_for

SYSTEMD = "/lib/systemd/systemd"
_UNITS = "/run/systemd/system"
_TOOLS = (SYSTEMD, "systemctl", "journalctl", "unshare", "nsenter", "mount", "/usr/bin/python3")
_JOURNAL = ("systemd-journald.service", "systemd-journald.socket")
# $1 is the built file. All targets that units of ours name are there, and mean nothing. The journal leaves alone what
# is this host's: its kernel's messages, and /dev/log.
_BOOT = f"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
for folder in /run /var/lib /var/cache /var/log /var/tmp; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mkdir -p /run/bin /run/lock {_UNITS} /run/systemd/journald.conf.d
install -m 755 "$1" /run/bin/ipclocker
mount -t tmpfs -o mode=1777 tmpfs /tmp
chmod 1777 /var/tmp
for name in test sysinit basic shutdown umount sockets multi-user network network-online nss-lookup; do
    printf '[Unit]\\nDescription=%s\\nDefaultDependencies=no\\n' $name > {_UNITS}/$name.target
done
echo 'Wants=systemd-journald.socket' >> {_UNITS}/test.target
for unit in {" ".join(_JOURNAL)}; do
    sed '/^Sockets=/d; /audit/d; /dev-log/d' /lib/systemd/system/$unit > {_UNITS}/$unit
done
printf '[Journal]\\nAudit=no\\nReadKMsg=no\\nStorage=volatile\\n' > /run/systemd/journald.conf.d/test.conf
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i container=test SYSTEMD_UNIT_PATH={_UNITS} \\
    {SYSTEMD} --system --unit=test.target --log-target=journal --show-status=no
"""


class Systemd:
    """The running one, by its pid here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._seen: set[str] = set()

    def __call__(self, *words: str, check: bool = True) -> str:
        """Run a command there to its end; its output, both kinds. It has to end well, unless `check` is False."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-i", "-u", "-n", "-C"]
        environment = {"PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin", "IPCLOCKER_CACHE": "/run"}
        done = subprocess.run(
            [*enter, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}: {done.stdout}\n{self.journal()}"
        return done.stdout

    def install(self, name: str, text: str) -> None:
        """Put a unit, or what is added to one (NAME.d/FILE.conf), there."""
        path = Path(f"/proc/{self.pid}/root{_UNITS}/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def remove(self, name: str) -> None:
        """Take it away again."""
        shutil.rmtree(Path(f"/proc/{self.pid}/root{_UNITS}/{name}").parent)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self("systemctl", "show", "-P", name, unit).strip()

    def journal(self, *options: str) -> str:
        """The log."""
        return self("journalctl", "--no-pager", *options, check=False)

    def process(self, unit: str) -> int:
        """A service's main process, by its pid here."""
        inner = self.show(unit, "MainPID")
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:\t\d+\t(\d+)$", (folder / "status").read_text(), re.MULTILINE)
                if numbers and numbers[1] == inner and os.readlink(folder / "ns/pid") == namespace:
                    return int(folder.name)
        raise AssertionError(f"{unit} has no process {inner}")


@contextlib.contextmanager
def booted(file: Path) -> Iterator[Systemd]:
    """A systemd that has started, until the end of the block; skips the test where there can be none."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}, to start a systemd")
    with _cgroup() as group:
        command = f'echo $$ > {group}/cgroup.procs && exec unshare "$@"'
        kinds = ["--pid", "--mount", "--ipc", "--uts", "--net", "--cgroup", "--fork", "--kill-child"]
        with subprocess.Popen(
            ["sh", "-c", command, "sh", *kinds, "sh", "-c", _BOOT, "sh", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield _wait_until_up(process)
            finally:
                process.kill()


def _wait_until_up(process: subprocess.Popen[str]) -> Systemd:
    systemd = Systemd(0)

    def is_up() -> bool:
        if process.poll() is not None:
            assert process.stdout is not None
            pytest.skip(f"no systemd can be started here: {process.stdout.read()}")
        systemd.pid = next(iter(children(process.pid)), 0)
        if not systemd.pid or "systemd" not in Path(f"/proc/{systemd.pid}/comm").read_text():
            return False
        return systemd("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    wait_for(is_up, "systemd to be up")
    systemd("ip", "link", "set", "lo", "up")
    return systemd


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """A control group for all that the systemd starts."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [place for _, place, kind, *_ in mounts if kind == "cgroup2"]
    if not roots:
        pytest.skip("needs control groups of version 2, to start a systemd")
    group = Path(roots[0]) / f"ipclocker-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as problem:
        pytest.skip(f"needs control groups that can be written, to start a systemd: {problem}")
    try:
        yield group
    finally:
        wait_for(lambda: _is_removed(group), "the control group to be empty")


def _is_removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)
    return not group.exists()
