"""Hosts that hold a Debian and its python3 and nothing else, made by debootstrap, kept in .cache/hosts.

A test runs a shell script on such a host: in a chroot, with mount and pid namespaces of its own. What the script
changes is in memory and is gone afterwards, and so are the processes that it started.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from ..support import PROJECT

MIRROR = os.environ.get("IPCLOCKER_TEST_MIRROR", "http://deb.debian.org/debian")
KEPT = PROJECT / ".cache" / "hosts"
SUITES = {"bullseye": (3, 9), "trixie": (3, 13)}  # and their python3
OWN_CI = os.environ.get("CI") == "true" and os.geteuid() == 0  # there the proof is never left out

# Every folder that a script may change is empty and in memory; the built file is copied in. A script begins in
# /mnt/poison, where there are modules that end the process if they are taken for ours.
_BOOT = """
root=$1 file=$2; shift 2
for folder in tmp var/tmp var/cache var/lib run usr/local root mnt; do
    mount -t tmpfs -o mode=755 tmpfs "$root/$folder"
done
chmod 1777 "$root/tmp" "$root/var/tmp"
mount -t proc proc "$root/proc"
mkdir "$root/usr/local/bin"
install -m 755 "$file" "$root/usr/local/bin/ipclocker"
mkdir "$root/mnt/poison"
for module in typer click rich ipclocker annotated_doc shutil sitecustomize usercustomize; do
    printf 'import os\\nos.write(2, b"poisoned")\\nos._exit(99)\\n' > "$root/mnt/poison/$module.py"
done
exec "$@"
"""


class Done(NamedTuple):
    """The end of a script: its exit code and its output."""

    code: int
    out: str
    err: str


class Host:
    """One Debian."""

    def __init__(self, root: Path, built_file: Path) -> None:
        self.root = root
        self.built_file = built_file

    def run(self, script: str, *, user: str = "root", environment: dict[str, str] | None = None) -> Done:
        """Run a shell script as that user, with PATH and `environment` and no other variable."""
        group = "nogroup" if user == "nobody" else user
        variables = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **(environment or {})}
        inside = ["chroot", f"--userspec={user}:{group}", str(self.root)]
        inside += ["/usr/bin/env", "-i", "-C", "/mnt/poison"]
        inside += [f"{name}={value}" for name, value in variables.items()]
        boot = ["sh", "-eu", "-c", _BOOT, "boot", str(self.root), str(self.built_file)]
        command = [*isolated(), *boot, *inside, "/bin/sh", "-eu", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        return Done(done.returncode, done.stdout, done.stderr)


def isolated() -> list[str]:
    """The words before a command that is to have its own mounts and pids; the latter end when it does."""
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]


def host(suite: str, built_file: Path) -> Host:
    """The host of that suite, made if it is missing. Skips the test, with a word, where none can be made."""
    _need_what_it_takes()
    root = KEPT / suite
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(suite, root)
    return Host(root, built_file)


def _need_what_it_takes() -> None:
    if os.geteuid() != 0:
        _leave_out("needs root, for debootstrap and chroot")
    for command in ("debootstrap", "unshare", "chroot"):
        if not shutil.which(command):
            _leave_out(f"needs {command}, which is not installed")
    tried = subprocess.run([*isolated(), "true"], capture_output=True, text=True)
    if tried.returncode:
        _leave_out(f"needs namespaces: {tried.stderr.strip()}")


def _leave_out(why: str) -> NoReturn:
    if OWN_CI:
        pytest.fail(f"the proof on a bare Debian {why}")
    pytest.skip(f"THE PROOF ON A BARE DEBIAN IS LEFT OUT: it {why}")


def _make(suite: str, root: Path) -> None:
    """Make the host beside its place and move it there, so that one which was broken off is never used."""
    try:
        urllib.request.urlopen(f"{MIRROR}/dists/{suite}/Release", timeout=60).close()
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 404:
            pytest.skip(f"NOT PROVEN ON {suite.upper()}: {MIRROR} does not carry it any more (404)")
        _leave_out(f"needs a mirror (IPCLOCKER_TEST_MIRROR), and {MIRROR} can't be reached: {error}")
    unfinished = root.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", "--include=python3", suite, str(unfinished), MIRROR]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
    with contextlib.suppress(OSError):
        shutil.rmtree(unfinished / "var/cache/apt")
    unfinished.rename(root)
