"""Many lockersh at once: never two commands under one name, everyone gets its turn, nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from ..support.processes import children, is_alive
from ..support.site import Site, Tool
from ..support.waiting import wait_for

# Appends what it does to the log of the lock that it was granted; the folder is a second witness.
COMMAND = """
echo "start $1 $$" >> "$2/log.$IPCLOCKER_LOCK"
mkdir "$2/only.$IPCLOCKER_LOCK" || echo "two at once" >> "$2/log.$IPCLOCKER_LOCK"
sleep 0.02
rmdir "$2/only.$IPCLOCKER_LOCK" 2>/dev/null
echo "end $1 $$" >> "$2/log.$IPCLOCKER_LOCK"
"""


@pytest.fixture(params=["UNIX", "TCP"])
def crowded(request: pytest.FixtureRequest, bare_site: Site) -> Site:
    if request.param == "TCP":
        bare_site.serve_tcp()
    else:
        bare_site.serve()
    return bare_site


def worker(site: Site, number: int, lock: str) -> Tool:
    words = ["--no-shell", "sh", "-c", COMMAND, "sh", str(number), str(site.folder)]
    return site.start_lockersh(*words, lock=lock)


def check_log(log: Path, *, some_were_ended: bool = False) -> list[int]:
    """The numbers of those who ran, in their order; none began before the one before it had ended."""
    ran: list[int] = []
    running = ""
    for line in log.read_text().splitlines():
        if some_were_ended and line == "two at once":
            continue  # who is ended leaves its folder behind
        what, number, pid = line.split()
        if what == "start":
            assert some_were_ended or not running, line
            running = f"{number} {pid}"
            ran.append(int(number))
        else:
            assert (what, f"{number} {pid}") == ("end", running), line
            running = ""
    return ran


def test_a_crowd(crowded: Site) -> None:
    names = ["one", "two", "three"]
    tools = [worker(crowded, number, names[number % 3]) for number in range(40)]
    assert [tool.end() for tool in tools] == [0] * 40
    ran = [check_log(crowded.folder / f"log.{name}") for name in names]
    assert sorted(number for numbers in ran for number in numbers) == list(range(40))
    assert all(number % 3 == place for place, numbers in enumerate(ran) for number in numbers)
    assert crowded.locks() == {}


def test_a_crowd_that_takes_any_of_three(site: Site) -> None:
    tools = [worker(site, number, "one:two:three") for number in range(20)]
    assert [tool.end() for tool in tools] == [0] * 20
    ran = [check_log(log) for log in site.folder.glob("log.*")]
    assert sorted(number for numbers in ran for number in numbers) == list(range(20))
    assert site.locks() == {}


def test_first_come_first_served(site: Site) -> None:
    holder = site.hold("one")
    tools = []
    for number in range(8):
        tools.append(worker(site, number, "one"))
        tools[-1].says("waiting for lock one")
    holder.process.terminate()
    assert [tool.end() for tool in tools] == [0] * 8
    assert check_log(site.folder / "log.one") == list(range(8))


def test_some_of_the_crowd_are_killed(crowded: Site) -> None:
    """Killed while they wait they leave nothing; ended by SIGTERM while they run they give the lock back."""
    dice = random.Random(17)
    holders = [crowded.hold(name) for name in ("one", "two", "three")]
    tools = [worker(crowded, number, ("one", "two", "three")[number % 3]) for number in range(30)]
    for tool in tools:
        tool.says("waiting for lock")
    killed = dice.sample(range(30), 12)
    for number in killed:
        tools[number].process.send_signal(dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    for holder in holders:
        holder.process.terminate()
    running = [number for number in range(30) if number not in killed]
    for number in dice.sample(running, 6):
        wait_for(lambda number=number: "obtained" in tools[number].err, "a turn")  # type: ignore[misc]
        tools[number].process.terminate()
    for number in running:
        assert tools[number].end() in (0, -signal.SIGTERM)
    for name in ("one", "two", "three"):
        ran = check_log(crowded.folder / f"log.{name}", some_were_ended=True)
        assert not set(ran) & set(killed)
    assert crowded.locks() == {}


def test_killed_holders_take_their_commands_along(site: Site) -> None:
    tools = [site.hold(f"name{number}") for number in range(10)]
    commands = [tool.child() for tool in tools]
    for tool in tools:
        tool.process.kill()
    for command in commands:
        wait_for(lambda command=command: not is_alive(command), "the end of the command")  # type: ignore[misc]
    wait_for(lambda: not site.locks(), "all locks to be free")


def test_free_on_return(crowded: Site) -> None:
    """What has returned holds nothing: the next try finds it free each time."""
    lockersh = f"'{crowded.file}' lockersh --lock a"
    script = f"for i in $(seq 50); do {lockersh} true || exit; {lockersh} --timeout 0 true || exit; done"
    done = subprocess.run(["sh", "-c", script], env=crowded.environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_is_left_behind(site: Site, number: signal.Signals) -> None:
    holder = site.hold()
    tool = site.start_lockersh("true")
    tool.says("waiting for lock")
    child = tool.child()
    tool.process.send_signal(number)
    assert tool.end() == -number
    wait_for(lambda: not is_alive(child), "the end of the child that would have become the command")
    assert children(os.getpid()).count(child) == 0
    assert holder.process.poll() is None
