"""A run within a run of the same lock says so at once; with --nested it runs under the outer lock, and ends with it."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from ..support.processes import is_alive
from ..support.site import Site, Tool
from ..support.waiting import wait_for

SAID = "lockersh: lock x is held by the run that this one is part of, which would wait for itself: --nested runs "
WITHOUT = "env -u IPCLOCKER_LOCK -u IPCLOCKER_TOKEN -u IPCLOCKER_SPACE "  # as sudo does it


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    yield shared_site
    shared_site.end_tools()
    shared_site.free("x", "y", "z")


def inner(site: Site, *words: str, lock: str = "x") -> str:
    """A line for a shell: lockersh with these words."""
    return shlex.join([site.file, "lockersh", "--lock", lock, *words])


def written(path: Path) -> str:
    """What is in a file, as soon as it is a whole line."""
    return wait_for(lambda: path.read_text() if path.exists() and path.read_text() else "", f"a line in {path}")


def left_alone(line: str) -> str:
    """A line for a shell that runs another one in a process whose parent has ended, and does not wait for it."""
    return f"sh -c {shlex.quote(f'({line}) &')}"


# Without --nested


@pytest.mark.parametrize("without", ["", WITHOUT], ids=["", "no environment"])
@pytest.mark.parametrize("options", [[], ["--timeout", "0"], ["--timeout", "1000"], ["--lease", "60"], ["--verbose"]])
def test_it_says_so_at_once(site: Site, without: str, options: list[str]) -> None:
    done = site.lockersh("--", "sh", "-c", f"{without}{inner(site, *options, '--', 'echo', 'ran')}; echo $?")
    assert (done.returncode, done.stdout) == (0, "75\n")
    said = [line for line in done.stderr.splitlines(keepends=True) if "waiting for lock" not in line]
    assert said == [f"{SAID}the command under that lock\n"]
    assert not site.locks()


def test_the_command_itself_may_be_the_inner_run(site: Site) -> None:
    done = site.lockersh("--", site.file, "lockersh", "--lock", "x", "--conflict-exit-code", "9", "--", "true")
    assert (done.returncode, done.stderr) == (9, f"{SAID}the command under that lock\n")


def test_two_levels_down(site: Site) -> None:
    middle = inner(site, "--", "sh", "-c", f"{inner(site, '--', 'true')}; echo $?", lock="y")
    assert site.lockersh("--", "sh", "-c", middle).stdout == "75\n", "the environment has the lock between"


def test_one_that_has_left_the_tree(site: Site) -> None:
    code = site.folder / "left.code"
    line = left_alone(f"{inner(site, '--', 'true')}; echo $? >{code}")
    tool = site.start_lockersh("--", "sh", "-c", f"{line}; exec sleep 1000")
    assert written(code) == "75\n" and SAID in tool.err
    tool.process.terminate()


def test_what_outlives_its_lock_queues_like_anybody(site: Site) -> None:
    """A daemon has the environment of a lock for as long as it lives."""
    done = site.lockersh("--", "printenv", "IPCLOCKER_TOKEN", "IPCLOCKER_SPACE")
    token, space = done.stdout.split()
    daemon = {**site.environment, "IPCLOCKER_LOCK": "x", "IPCLOCKER_TOKEN": token, "IPCLOCKER_SPACE": space}
    assert site.lockersh("--", "printenv", "IPCLOCKER_TOKEN", env=daemon).stdout > f"{token}\n"
    holder = site.hold()
    busy = site.lockersh("--timeout", "0", "--", "true", env=daemon)
    assert busy.returncode == 75 and "is busy" in busy.stderr
    waiter = site.start_lockersh("--nested", "--", "true", env=daemon)
    waiter.says("waiting for lock x")
    holder.process.terminate()
    assert waiter.end() == 0


def test_a_busy_lock_costs_no_question_more_than_before(site: Site) -> None:
    site.hold()
    told = site.lockersh("--debug", "--timeout", "0", "--", "true").stderr
    assert "lockersh: > LOCK\n" in told
    assert "CHECK" not in told and "LOCK_INFO" not in told


def test_of_several_the_one_that_is_waited_for_decides(site: Site) -> None:
    def run(*words: str) -> tuple[str, str]:
        done = site.lockersh("--", "sh", "-c", f"{inner(site, *words, '--', 'printenv', 'IPCLOCKER_LOCK')}; echo $?")
        return done.stdout, done.stderr

    assert run("--lock", "y") == ("y\n0\n", ""), "the first that is free"
    assert run("--lock", "y", "--all") == ("75\n", f"{SAID}the command under that lock\n")
    site.hold("y")
    out, err = run("--lock", "y", "--timeout", "0.3")
    assert out == "75\n" and "is busy after 0.3 s" in err, "the other one may come free"


# With --nested


@pytest.mark.parametrize("without", ["", WITHOUT], ids=["", "no environment"])
@pytest.mark.parametrize("options", [[], ["--timeout", "0"], ["--lease", "60"]])
def test_nested_it_runs_under_the_outer_lock(site: Site, without: str, options: list[str]) -> None:
    tell = "echo $IPCLOCKER_LOCK $IPCLOCKER_TOKEN $IPCLOCKER_SPACE"
    line = inner(site, "--nested", *options, "--", "sh", "-c", f"{tell}; exit 7")
    done = site.lockersh("--", "sh", "-c", f"{tell}; {without}{line}; echo $?; {site.file} lockstat list")
    outer, nested, code, _, listed = done.stdout.splitlines()
    assert outer == nested and code == "7" and done.stderr == ""
    assert listed.split()[0] == "x" and outer.split()[1] in listed, "the lock is still the outer run's"


def test_nested_alone_it_takes_the_lock(site: Site) -> None:
    assert site.lockersh("--nested", "--", "printenv", "IPCLOCKER_LOCK").stdout == "x\n"
    holder = site.hold()
    assert site.lockersh("--nested", "--timeout", "0", "--", "true").returncode == 75
    holder.process.terminate()


def test_nested_with_several(site: Site) -> None:
    tell = "echo $IPCLOCKER_LOCK $IPCLOCKER_TOKEN"
    line = inner(site, "--all", "--lock", "y", "--nested", "--", "sh", "-c", tell)
    done = site.lockersh("--all", "--lock", "y", "--", "sh", "-c", f"{tell}; {line}; {WITHOUT}{line}")
    assert len(set(done.stdout.splitlines())) == 1 and done.stdout.startswith("x y "), done
    done = site.lockersh("--", "sh", "-c", f"{line}; echo $?")
    assert done.stdout == "75\n"
    assert done.stderr == (
        "lockersh: lock x is held by the run that this one is part of, and lock y is not: ask for the latter alone\n"
    )


def test_nested_a_signal_reaches_the_command(site: Site) -> None:
    note = site.folder / "signal"
    line = f"trap 'echo got it >{note}; exit 5' TERM; echo >{note}.ready; while :; do sleep 0.02; done"
    tool = site.start_lockersh("--", site.file, "lockersh", "--lock", "x", "--nested", "--", "sh", "-c", line)
    wait_for(Path(f"{note}.ready").exists, "the nested command")
    tool.process.terminate()
    assert tool.end() == 5 and note.read_text() == "got it\n"


# It ends with the outer run


def nested(
    site: Site, *options: str, outer: tuple[str, ...] = (), around: Callable[[str], str] = str
) -> tuple[Tool, int, Path]:
    """Start an outer run with a nested one: the outer tool, the nested command's pid, a file for the nested exit code.

    `around` makes the outer command of the line that runs the nested one.
    """
    pid, code = site.folder / "nested.pid", site.folder / "nested.code"
    for path in (pid, code):
        path.unlink(missing_ok=True)
    command = inner(site, "--nested", *options, "--", "sh", "-c", f"echo $$ >{pid}; exec sleep 1000")
    tool = site.start_lockersh(*outer, "--", "sh", "-c", around(f"{command}; echo $? >{code}"))
    number = int(written(pid))
    site.ends_with(number)
    return tool, number, code


@pytest.mark.parametrize("options", [[], ["--on-lost", "echo lost $IPCLOCKER_LOCK >&2"]])
def test_when_the_lock_is_broken(site: Site, options: list[str]) -> None:
    tool, pid, code = nested(site, *options)
    site.free("x")
    assert written(code) == "76\n" and not is_alive(pid)
    assert tool.end() == 0, "without --on-lost the outer command goes on"
    said = "lock x of the outer run was lost while the command runs: the server does not know of its grant any more; it"
    assert said in tool.err and ("lost x\n" in tool.err) == bool(options)


def test_when_the_outer_lockersh_is_killed(site: Site) -> None:
    """Then the kernel kills the outer command, and with it the lock is gone."""
    tool, pid, _ = nested(site)
    tool.process.kill()
    wait_for(lambda: not is_alive(pid), "the end of the nested command")
    wait_for(lambda: site.locks() == {}, "the lock to be free")
    wait_for(lambda: "the process that holds it has ended; it gets SIGTERM" in tool.err, "the reason")


def test_when_the_outer_command_has_left_it_behind(site: Site) -> None:
    tool, pid, code = nested(site, around=lambda line: f"({line}) & sleep 0.5")
    assert tool.end() == 0
    assert written(code) == "76\n" and not is_alive(pid)


def test_when_it_had_left_the_tree_before(site: Site) -> None:
    """Then the server says it."""
    tool, pid, code = nested(site, around=lambda line: f"{left_alone(line)}; exec sleep 1000")
    tool.process.terminate()
    assert tool.end() == -signal.SIGTERM
    assert written(code) == "76\n" and not is_alive(pid)


def test_a_command_that_ignores_the_signal_is_killed(site: Site) -> None:
    pid = site.folder / "deaf.pid"
    deaf = f"trap '' TERM; echo $$ >{pid}; while :; do sleep 0.1; done"
    tool = site.start_lockersh("--", "sh", "-c", inner(site, "--nested", "--", "sh", "-c", deaf))
    number = int(written(pid))
    site.ends_with(number)
    site.free("x")
    assert tool.end() == 76 and not is_alive(number)


@pytest.mark.parametrize("outer", [("--on-lost", "kill"), ("--lease", "60")])
def test_what_ends_the_outer_command_ends_it_too(site: Site, outer: tuple[str, ...]) -> None:
    tool, pid, _ = nested(site, outer=outer)
    site.free("x")
    assert tool.end() == 76 and not is_alive(pid)


def test_it_goes_on_while_the_server_is_away(bare_site: Site) -> None:
    server = bare_site.serve("--state", f"{bare_site.folder}/locks.db")
    tool, pid, code = nested(bare_site, "--debug")
    server.process.terminate()
    server.end()
    checks = tool.err.count("> CHECK x ")
    bare_site.serve("--state", f"{bare_site.folder}/locks.db")
    wait_for(lambda: tool.err.count("> CHECK x ") > checks, "the next question")
    os.kill(pid, signal.SIGUSR1)
    assert written(code) == f"{128 + signal.SIGUSR1}\n"
    assert tool.end() == 0
