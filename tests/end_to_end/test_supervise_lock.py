"""Supervisors that share a cluster lock: their programs run on one of many hosts, and move when that one is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

from ..support.processes import is_alive
from ..support.site import Node, Site, new_nodes, nodes_can_be_made
from ..support.waiting import wait_for
from .supervising import Supervised

LEASE = "4"
# Says if it is started while the one before still lives (and is no zombie), whoever has started that.
SCRIPT = """
last=$(tail -n 1 "$NOTES/runs" 2>/dev/null)
if [ "$last" ] && grep -q ") [^ZX]" /proc/$last/stat 2>/dev/null; then echo "$last and $$" >> "$NOTES/two"; fi
echo $$ >> "$NOTES/runs"
"""
ALONE = 'sh "$NOTES/alone"'
Start = Callable[..., Supervised]


@pytest.fixture
def supervise(site: Site) -> Iterator[Start]:
    """Starts supervisors that want one lock for one program, and share their notes."""
    started: list[Supervised] = []
    notes = site.folder / "shared"
    notes.mkdir()
    (notes / "alone").write_text(SCRIPT + "exec sleep 1000\n")
    (notes / "deaf").write_text('trap "" TERM\n' + SCRIPT + "while :; do sleep 0.1; done\n")

    def start(command: str = "exec " + ALONE, *words: str) -> Supervised:
        options = ["--lock", "svc", "--lease", LEASE, *words]
        name = f"host{len(started)}"
        started.append(Supervised(site, *options, "--program", f"web: {command}", name=name, env={"NOTES": str(notes)}))
        started[-1].notes = notes
        return started[-1]

    yield start
    for supervised in started:
        if supervised.tool.process.poll() is None:
            supervised.end(signal.SIGTERM)
        assert "a fault of ours" not in supervised.tool.err
    assert not (notes / "two").exists(), "two ran at once: " + (notes / "two").read_text()


def runs(supervised: Supervised, count: int) -> int:
    """Wait until there were so many runs; the latest."""
    return supervised.latest("runs", count)


def is_up(supervised: Supervised) -> bool:
    return supervised.programs()["web"]["state"] in ("STARTING", "RUNNING")


def test_one_runs_and_the_other_stands_by(supervise: Start, site: Site) -> None:
    first = supervise('echo "$IPCLOCKER_LOCK $IPCLOCKER_TOKEN"; exec ' + ALONE)
    pid = runs(first, 1)
    second = supervise()
    wait_for(lambda: second.programs()["web"]["state"] == "STANDBY", "the second to stand by")
    lock = first.ask("status")["supervisor"]["lock"]
    assert (lock["wanted"], lock["held"]) == (["svc"], "svc")
    assert f"web: svc {lock['token']}" in first.out.read_text()
    assert second.ask("status")["supervisor"]["lock"] == {"wanted": ["svc"], "held": None, "token": None}
    shown = site.run("supervise", "status", "--pid-file", second.pid_file).stdout
    assert shown.startswith("waiting for lock svc\n")
    # What is told to one that stands by is kept in mind.
    second.ask("stop")
    assert second.programs()["web"]["state"] == "STOPPED"
    second.ask("start")
    assert second.programs()["web"]["state"] == "STANDBY"
    begin = time.monotonic()
    assert first.end() == 0
    assert runs(second, 2) != pid
    assert time.monotonic() - begin < 20.0
    assert not is_alive(pid)
    os.kill(runs(second, 2), signal.SIGKILL)
    runs(second, 3)


@pytest.mark.parametrize("which", ["the monitor", "the supervisor", "the supervisor is stopped"])
def test_they_move_when_the_supervisor_is_no_more(supervise: Start, which: str) -> None:
    """By no single fault two run at once."""
    first = supervise(ALONE + " & wait")  # a child of the program's first process
    pid = runs(first, 1)
    second = supervise()
    wait_for(lambda: second.programs()["web"]["state"] == "STANDBY", "the second to stand by")
    supervisor = first.supervisor()
    number = signal.SIGSTOP if "stopped" in which else signal.SIGKILL
    os.kill(first.pid if which == "the monitor" else supervisor, number)
    runs(second, 2)
    assert not is_alive(pid)
    if number == signal.SIGSTOP:
        os.kill(supervisor, signal.SIGCONT)
        wait_for(lambda: first.programs()["web"]["state"] == "STANDBY", "it to see that it has lost the lock")


def test_they_end_in_time_when_the_lock_server_is_silent(supervise: Start, site: Site) -> None:
    first = supervise('sh "$NOTES/deaf"', "--stop-timeout", "1000")
    pid = runs(first, 1)
    assert site.server is not None
    begin = time.monotonic()
    os.kill(site.server.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: not is_alive(pid), "its end")
        taken = time.monotonic() - begin
    finally:
        os.kill(site.server.pid, signal.SIGCONT)
    assert taken < float(LEASE), "it would have been killed too late"
    first.tool.says("the lock svc is lost: the programs are ended")
    runs(first, 2)  # the server answers again
    first.end(signal.SIGKILL)  # anything else would take 1000 s


def test_they_end_when_the_lock_is_asked_for_back(supervise: Start, site: Site) -> None:
    first = supervise()
    pid = runs(first, 1)
    second = supervise()
    wait_for(lambda: second.programs()["web"]["state"] == "STANDBY", "the second to stand by")
    broken = site.run("lockstat", "break", "svc")
    assert broken.returncode == 0, broken.stderr
    runs(second, 2)
    assert not is_alive(pid)
    assert first.programs()["web"]["state"] == "STANDBY"


def test_without_a_lock_server_they_wait_for_one(supervise: Start, site: Site) -> None:
    assert site.server is not None
    site.server.process.kill()
    site.server.end()
    first = supervise()
    first.tool.says("no lock server answers; trying again")
    assert first.programs()["web"]["state"] == "STANDBY"
    site.serve()
    runs(first, 1)


@contextmanager
def one_network(site: Site, *names: str) -> Iterator[list[Node]]:
    if os.geteuid() != 0 or not nodes_can_be_made():
        pytest.skip("hosts of their own can't be made here")
    with new_nodes(site, *names) as nodes:
        yield nodes


def test_they_move_to_another_host_when_theirs_is_cut_off(bare_site: Site) -> None:
    """Both sides judge by their own clock: those of the lost host are dead before the others start."""
    notes = bare_site.folder / "notes"
    notes.mkdir()
    beat = 'while :; do echo "$(date +%s.%N) $HOST" >> "$NOTES/beats"; sleep 0.05; done'
    beats = notes / "beats"
    with one_network(bare_site, "lockhost", "one", "two") as (lockhost, one, two):
        bare_site.environment["NOTES"] = str(notes)
        bare_site.environment.pop("IPCLOCKER_PORT", None)
        lockhost.start(bare_site.file, "lockerd", "--nofork", "--host", "0.0.0.0", "--state", "none").says("listening")
        for node in (one, two):
            node.start(
                bare_site.file, "supervise", "--nofork", "--lock", "svc", "--lease", LEASE, "--dhost", "lockhost",
                "--pid-file", f"{bare_site.folder}/{node.name}.pid",
                "--program", f"web: HOST={node.name}; {beat}",
            )  # fmt: skip
            wait_for(lambda: beats.exists() and "one" in beats.read_text(), "the first to run")
        one.cut()
        wait_for(lambda: "two" in beats.read_text(), "the second to run")
        time.sleep(1.0)
        hosts = [line.split()[1] for line in beats.read_text().splitlines()]
        assert hosts == sorted(hosts), "they ran at once"
        one.cut(off=False)
        time.sleep(1.0)
        assert beats.read_text().splitlines()[-1].endswith("two")
        for path in Path(bare_site.folder).glob("*.pid"):
            assert path.name in ("one.pid", "two.pid")
