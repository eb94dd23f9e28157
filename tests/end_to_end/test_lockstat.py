"""lockstat beside lockersh and lockerd: what it shows, and what becomes of commands whose lock it breaks."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

from ..support.processes import is_alive
from ..support.site import Site, Tool
from ..support.waiting import wait_for


def held(site: Site, name: str = "x") -> dict[str, Any]:
    """What lockstat shows of a held lock."""
    done = site.run("lockstat", "show", name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (lock,) = json.loads(done.stdout)["locks"]
    return dict(lock)


def start_waiter(site: Site, *words: str | Path) -> Tool:
    waiter = site.start_lockersh(*words)
    waiter.says("waiting for lock x")
    return waiter


def start_lease(site: Site, *words: str | Path, lease: str = "60") -> Tool:
    """Run a command under the lock x with a lease; on return it runs."""
    begun = site.folder / "begun"
    holder = site.start_lockersh(
        "--lease", lease, f"trap 'exit 3' TERM; echo $$ > {begun}; {' '.join(map(str, words))}"
    )
    wait_for(lambda: begun.exists() and begun.read_text().endswith("\n"), "the command to begin")
    return holder


def test_a_lock_and_those_who_wait_for_it(site: Site) -> None:
    holder = site.hold("x")
    site.hold("other")
    first, second = start_waiter(site, "true"), start_waiter(site, "echo second")
    assert [line.split()[0] for line in site.run("lockstat", "list").stdout.splitlines()] == ["NAME", "other", "x"]
    lock = held(site)
    assert (lock["host"], lock["pid"], lock["holder"]) == (socket.gethostname(), holder.child(), site.locks()["x"])
    assert (lock["hold"], lock["lease"], lock["confirmed"]) == (None, None, True)
    assert 0 <= lock["age"] < 60 and lock["token"] > 0
    assert [waiter["pid"] for waiter in lock["waiters"]] == [first.child(), second.child()]
    page = site.run("lockstat", "show", "x").stdout
    assert re.search(r"^   1\. \S+, waits for .* pid \d+", page, re.MULTILINE)
    holder.process.terminate()
    assert (first.end(), second.end()) == (0, 0)
    done = site.run("lockstat", "show", "x")
    assert (done.returncode, done.stdout) == (1, "lock x is free\n")


def test_what_runs_under_a_lock_is_shown(site: Site) -> None:
    site.start_lockersh("exec sleep 1000; echo 50%")
    wait_for(lambda: "x" in site.locks(), "the lock to be held")
    waiter = start_waiter(site, "exit 0")
    lock = held(site)
    assert lock["command"] == "exec sleep 1000; echo 50%"
    assert lock["waiters"][0]["command"] == "exit 0"
    assert "\ncommand  exec sleep 1000; echo 50%\n" in site.run("lockstat", "show", "x").stdout
    waiter.process.kill()


def test_a_lock_that_is_broken(site: Site) -> None:
    """Its holder is told, and its command runs on."""
    holder = site.hold("x")
    owner = site.locks()["x"]
    done = site.run("lockstat", "break", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lock x was taken from {owner}\n", "")
    assert site.locks() == {}
    holder.says("lost")
    assert is_alive(holder.child())
    done = site.run("lockstat", "break", "x")
    assert done.returncode == 1 and "free" in done.stdout


def test_a_lease_that_is_broken(site: Site) -> None:
    """Its command has ended before the lock is free."""
    holder = start_lease(site, "sleep 1000 & wait")
    command = int((site.folder / "begun").read_text())
    lock = held(site)
    assert lock["lease"] == 60 and 0 < lock["left"] <= 60
    waiter = site.start_lockersh(f"kill -0 {command} && echo alive || echo ended", stdout=-1)
    waiter.says("waiting for lock x")
    done = site.run("lockstat", "break", "x")
    assert done.returncode == 0, done
    assert re.fullmatch(rf"lock x was taken back from {lock['holder']} after .* s\n", done.stdout)
    assert "was told to end" in done.stderr
    assert waiter.out() == "ended\n"
    assert holder.end() == 76


def test_a_lease_whose_command_takes_its_time(site: Site) -> None:
    """It is still held when the wait is over; --force takes it at once."""
    holder = start_lease(site, "trap '' TERM; exec sleep 1000")
    owner = held(site)["holder"]
    done = site.run("lockstat", "break", "x", "--timeout", "0.3")
    assert (done.returncode, done.stdout) == (75, "")
    assert f"lock x is still held by {owner}" in done.stderr and "--force" in done.stderr
    assert held(site)["recalled"] is True
    assert "recalled" in site.run("lockstat", "list").stdout
    done = site.run("lockstat", "break", "--force", "x")
    assert (done.returncode, done.stdout) == (0, f"lock x was taken from {owner}\n")
    assert site.locks() == {}
    holder.process.kill()


def test_the_token_of_a_command(site: Site) -> None:
    """A command can ask whether it is still the holder, and is told when it is not."""
    verify = f"{site.file} lockstat verify x $IPCLOCKER_TOKEN"
    steps = site.folder / "go"
    script = f"{verify}; echo $?; while [ ! -e {steps} ]; do sleep 0.05; done; {verify}; echo $?"
    holder = site.start_lockersh(script, stdout=-1)
    wait_for(lambda: "x" in site.locks(), "the lock to be held")
    token = held(site)["token"]
    assert site.run("lockstat", "verify", "x", str(token)).returncode == 0
    assert site.run("lockstat", "verify", "x", str(token - 1)).returncode == 1
    assert holder.process.stdout is not None
    assert [holder.process.stdout.readline() for _ in range(2)] == [f"token {token} of lock x is current\n", "0\n"]
    site.run("lockstat", "break", "x")
    steps.touch()
    assert holder.out() == f"token {token} of lock x is stale\n1\n"


def test_ping(site: Site) -> None:
    done = site.run("lockstat", "ping", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["server"] == site.environment["IPCLOCKER_PORT"]
    assert site.server is not None
    site.server.process.kill()
    site.server.end()
    done = site.run("lockstat", "ping")
    assert done.returncode == 69 and re.fullmatch(r"lockstat: no lock server answers .*\n", done.stderr)


def test_output_that_goes_nowhere(site: Site) -> None:
    with open("/dev/full", "w") as full:
        done = site.run("lockstat", "list", stdout=full, stderr=-1, capture_output=False)
    assert (done.returncode, done.stderr) == (74, "lockstat: No space left on device\n")


def test_called_by_a_link(site: Site, tmp_path: Path) -> None:
    link = tmp_path / "lockstat"
    link.symlink_to(site.file)
    site.file = str(link)
    assert site.run("list").stdout.startswith("no lock is held on ")
