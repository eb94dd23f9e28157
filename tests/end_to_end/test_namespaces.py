"""lockersh in places of its own: as process 1, on a host without a name, and with a name server that is silent."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from ..support.processes import children
from ..support.site import Site, Tool
from ..support.waiting import wait_for

NAMESPACES = ["unshare", "--pid", "--mount", "--uts", "--net", "--fork", "--kill-child", "--mount-proc"]


def has_namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_namespaces(), reason="needs unshare(1) and the right to use it, so root")


def start(site: Site, *words: str, before: str = ":") -> Tool:
    """Start a command as process 1 of its own namespaces, after a bit of shell there."""
    script = f'{before}\nexec "$@"'
    tool = site.start("--version", stdout=subprocess.DEVNULL)
    tool.end()
    stderr = site.folder / f"inside.{time.monotonic_ns()}"
    with stderr.open("w") as file:
        process = subprocess.Popen(
            [*NAMESPACES, "sh", "-c", script, "sh", *words],
            env=site.environment,
            stdout=subprocess.PIPE,
            stderr=file,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    tool = Tool(process, stderr)
    site.watch(tool)
    return tool


def lockersh(site: Site, *words: str, **more: Any) -> Tool:
    return start(site, site.file, "lockersh", "--lock", "x", "--verbose", *words, **more)


# As process 1


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("true", 0), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_exit_code(site: Site, command: str, code: int) -> None:
    tool = lockersh(site, command)
    assert tool.end() == code, tool.err
    wait_for(lambda: not site.locks(), "the lock to be free")


def test_it_is_process_1_and_the_command_is_not(site: Site) -> None:
    tool = lockersh(site, "echo $PPID; head -1 /proc/1/comm >/dev/null; tr '\\0' ' ' </proc/1/cmdline")
    out = tool.out()
    assert out.startswith("1\n") and "lockersh" in out, tool.err


def test_orphans_are_reaped(site: Site) -> None:
    program = (
        "import os, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        os.fork()\n"  # its child becomes an orphan, and ends a little later
        "        os._exit(0) if os.getppid() != 1 else None\n"
        "        os._exit(0)\n"
        "for _ in range(20): os.wait()\n"
        "def left(): return [p for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())]\n"
        "deadline = time.monotonic() + 20\n"
        "while left() and time.monotonic() < deadline: time.sleep(0.01)\n"
        "print(left())\n"
    )
    tool = lockersh(site, "--no-shell", sys.executable, "-c", program)
    assert tool.out() == "[]\n"


def test_signals_are_passed_on(site: Site) -> None:
    tool = lockersh(site, "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.02; done")
    assert tool.process.stdout is not None
    assert tool.process.stdout.readline() == "ready\n"
    [inside] = children(tool.pid)
    os.kill(inside, signal.SIGTERM)
    assert tool.out() == "term\n"
    assert tool.end() == 9


def test_a_signal_while_it_waits(site: Site) -> None:
    """The kernel does not let process 1 die by a signal, so it exits."""
    holder = site.hold()
    tool = lockersh(site, "true", before="hostname another")
    tool.says("waiting for lock x")
    [inside] = children(tool.pid)
    os.kill(inside, signal.SIGTERM)
    assert tool.end() == 128 + signal.SIGTERM
    holder.process.terminate()
    wait_for(lambda: not site.locks(), "the lock to be free")


def test_a_waiter_that_can_not_see_the_holder(site: Site) -> None:
    """The holder's number means nothing in another pid namespace, whatever the host's name there."""
    holder = site.start_lockersh(f"touch {site.folder}/begun; sleep 0.5; touch {site.folder}/ended")
    wait_for((site.folder / "begun").exists, "the holder")
    tool = lockersh(site, f"test -e {site.folder}/ended")
    assert tool.end() == 0, tool.err
    assert holder.end() == 0


# Names

# A name server that hears and says nothing; `lo` is down in a new network namespace.
SERVER = """
import fcntl, socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(sock, 0x8914, struct.pack("16sH14s", b"lo", 1, b""))  # SIOCSIFFLAGS, IFF_UP
sock.bind(("127.0.0.1", 53))
open("/mnt/ready", "w").close()
sock.recv(1000)
open("/mnt/asked", "w").close()
while True:
    sock.recv(1000)
"""
SILENT = f"""
mount -t tmpfs tmpfs /mnt
printf 'nameserver 127.0.0.1\\n' > /mnt/resolv.conf
printf '127.0.0.1 somebody-else\\n' > /mnt/hosts
printf 'hosts: files dns\\n' > /mnt/nsswitch.conf
for file in resolv.conf hosts nsswitch.conf; do touch /etc/$file; mount --bind /mnt/$file /etc/$file; done
{shlex.quote(sys.executable)} -c {shlex.quote(SERVER)} &
until [ -e /mnt/ready ]; do sleep 0.01; done
"""
NAMES = {"unknown": "hostname no-such-host.invalid", "empty": "hostname ''", "as it is": ":"}


def set_name(name: str) -> str:
    if name == "empty":
        return f"{shlex.quote(sys.executable)} -c 'import socket; socket.sethostname(\"\")'"
    return NAMES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_name_server_and_a_name_that_it_does_not_know(bare_site: Site, name: str) -> None:
    """Nothing of a whole round takes as long as the resolver would (5 s for each try)."""
    file = shlex.quote(bare_site.file)
    script = f"""
    begin=$(date +%s%N)
    took() {{ end=$(date +%s%N); echo "$1 $(( (end - begin) / 1000000 ))"; begin=$end; }}
    {file} lockerd --pid-file {bare_site.folder}/pid --log-file {bare_site.folder}/log --port 17511
    took lockerd
    unset IPCLOCKER_HOST
    export IPCLOCKER_PORT=17511
    {file} lockersh --lock x --timeout 5 true || echo "code $?"
    took lockersh
    {file} lockersh --lock x '{file} lockersh --locklist >/dev/null; exit 3' || echo "code $?"
    took locklist
    {file} lockersh --dhost 127.0.0.1 --lock x true || echo "code $?"
    took address
    {file} lockersh --version >/dev/null
    took version
    {file} lockersh --path {bare_site.folder}/nobody --connect-tries 1 --lock x true 2>/dev/null || echo "code $?"
    took nobody
    """
    bare_site.run("--version")  # unpacks
    tool = start(bare_site, "sh", "-c", script, before=f"{SILENT} {set_name(name)}")
    lines = tool.out().splitlines()
    assert [line for line in lines if line.startswith("code")] == ["code 3", "code 69"], tool.err
    times = {line.split()[0]: int(line.split()[1]) for line in lines if not line.startswith("code")}
    assert len(times) == 6
    assert all(milliseconds < 2500 for milliseconds in times.values()), times


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_host_is_looked_up(bare_site: Site, number: signal.Signals) -> None:
    """A resolver takes 10 s and more; a signal is not to wait for it."""
    script = """
    "$@" & tool=$!
    until [ -e /mnt/asked ]; do sleep 0.01; done
    begin=$(date +%s%N)
    kill -$NUMBER $tool
    wait $tool
    echo "code $? $(( ($(date +%s%N) - begin) / 1000000 ))"
    """
    bare_site.environment.update(NUMBER=str(int(number)), IPCLOCKER_PORT="17512")
    words = [bare_site.file, "lockersh", "--dhost", "not-in-the-hosts-file.example", "--lock", "x", "true"]
    tool = start(bare_site, "sh", "-c", script, "sh", *words, before=SILENT)
    _, code, milliseconds = tool.out().split()
    assert int(code) == 128 + number, tool.err
    assert int(milliseconds) < 3000
